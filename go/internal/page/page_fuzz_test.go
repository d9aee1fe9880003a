package page

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// With any line and any request, the page is harmless.
func FuzzPage(f *testing.F) {
	f.Add([]byte(`{"name":"b.test","port":8443,"protocol":"tls","reason":"no-rule","time":"2026-11-29T12:00:01Z"}`), "/?format=json", "text/html")
	f.Add(hostileLine(hostile, hostile), "/x?y", hostile)
	f.Fuzz(func(t *testing.T, line []byte, target, accept string) {
		s := newScene()
		s.Add(someone, line)
		checkHarmless(t, s)
		asked := httptest.NewRequest("GET", "/", nil)
		asked.URL.Path, asked.URL.RawQuery, _ = strings.Cut(target, "?")
		asked.Header = http.Header{agentHeader: {someone.String()}, "Accept": {accept}}
		serverOf(s, nothing).ServeHTTP(httptest.NewRecorder(), asked)
	})
}

// A readable question is the same when it is written again.
func FuzzQuestion(f *testing.F) {
	f.Add(question(someone, first))
	f.Fuzz(func(t *testing.T, text string) {
		source, hardware, err := readQuestion(text)
		if err != nil {
			return
		}
		if again, same, err := readQuestion(question(source, hardware)); err != nil || again != source || same != hardware {
			t.Errorf("%q: %s, %s, %v", text, again, same, err)
		}
	})
}
