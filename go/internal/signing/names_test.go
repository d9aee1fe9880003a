package signing

import (
	"strings"
	"testing"

	"clawker-fw/internal/must"
)

// A name is inspected if it is listed, or in a subtree, whose own name is in it.
func TestInspected(t *testing.T) {
	list := must.Get[*inspected](t)(parseNames([]byte(`{"names": ["one.test"], "subtrees": ["w.test", "a.two.test"]}`)))
	for name, wanted := range map[string]bool{
		"one.test": true, "x.one.test": false, "w.test": true, "x.w.test": true, "y.x.w.test": true, "xw.test": false, "test": false,
		"two.test": false, "a.two.test": true, "b.a.two.test": true, "": false,
	} {
		if found := list.rule(name) != ""; found != wanted {
			t.Errorf("%q: %t", name, found)
		}
	}
	if (*inspected)(nil).rule("one.test") != "" {
		t.Error("without a list, nothing is inspected")
	}
}

// A list that can't be read as a whole is refused.
func TestParseNamesRefuses(t *testing.T) {
	for _, content := range []string{``, `[]`, `{"names": ["A.test"]}`, `{"subtrees": [".a.test"]}`, `{"subtree": []}`, `{"names": []} x`} {
		if _, err := parseNames([]byte(content)); err == nil {
			t.Errorf("%s was read", content)
		}
	}
}

// Certificates are for host names in lower case, however a client has spelt them, and for nothing else.
func TestCertified(t *testing.T) {
	for asked, wanted := range map[string]string{
		"N0.W.TeSt": "n0.w.test", "a_b.test": "a_b.test", "127.0.0.1": "", "::1": "", "*.w.test": "", "a/../../b.w.test": "", "w.test.": "",
		"": "", strings.Repeat("a", 240): "", "secret:x": "", "w.test\x00": "", "\xff.test": "",
	} {
		if found, is := certified(asked); is != (wanted != "") || is && found != wanted {
			t.Errorf("%q: %q, %t", asked, found, is)
		}
	}
}
