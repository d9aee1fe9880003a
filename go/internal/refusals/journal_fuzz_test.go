package refusals

import "testing"

// Any line of the program stands for one refusal or more.
func FuzzReadLine(f *testing.F) {
	f.Add([]byte(`{"source":"10.0.0.7:4711","suppressed":7}`))
	f.Add([]byte(`{"source":"10.0.0.7:4711","suppressed":9223372036854775807}`))
	f.Add([]byte(`{"source":"`))
	f.Fuzz(func(t *testing.T, line []byte) {
		if _, refusals := readLine(line); refusals < 1 {
			t.Errorf("%d refusals in %q", refusals, line)
		}
	})
}
