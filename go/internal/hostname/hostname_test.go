package hostname

import (
	"strings"
	"testing"
)

// A host name in lower case has labels of 1 to 63 letters, digits, hyphens and underscores.
func TestLower(t *testing.T) {
	long := strings.Repeat("a", 63)
	for name, want := range map[string]string{
		"a.test": "a.test", "A.TeSt": "a.test", "_x-.a1": "_x-.a1", "localhost": "localhost", long + ".test": long + ".test",
		"": "", ".": "", "a..test": "", ".test": "", "test.": "", "*.test": "", "a/b.test": "", "a b": "", "a\x00b": "", "ä.test": "",
		"\u212a.test": "", "secret:ID": "", "[::1]": "", long + "a.test": "", strings.Repeat(long+".", 4): "",
		strings.Repeat("a.", 126) + "b": strings.Repeat("a.", 126) + "b", strings.Repeat("a.", 127) + "b": "",
	} {
		if got, ok := Lower(name); ok != (want != "") || ok && got != want {
			t.Errorf("%q: got %q, %t", name, got, ok)
		}
	}
}
