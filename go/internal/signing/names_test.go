package signing

import (
	"testing"
)

// A list that can't be read as a whole is refused.
func TestParseNamesRefuses(t *testing.T) {
	for _, content := range []string{``, `[]`, `{"names": ["A.test"]}`, `{"subtrees": [".a.test"]}`, `{"subtree": []}`, `{"names": []} x`} {
		if _, err := parseNames([]byte(content)); err == nil {
			t.Errorf("%s was read", content)
		}
	}
}
