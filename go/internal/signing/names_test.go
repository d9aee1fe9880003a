package signing

import (
	"testing"
)

// A partly unreadable list is refused.
func TestParseNamesRefuses(t *testing.T) {
	for _, content := range []string{``, `[]`, `{"names": ["A.test"]}`, `{"subtrees": [".a.test"]}`, `{"subtree": []}`, `{"names": []} x`} {
		if _, err := parseNames([]byte(content)); err == nil {
			t.Errorf("%s was read", content)
		}
	}
}
