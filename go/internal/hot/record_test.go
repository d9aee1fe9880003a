package hot

import (
	"slices"
	"strings"
	"testing"
)

// A file's version is recognised only at its very end, and only in the form that clawker-fw and commits write.
func TestVersionOf(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", 3)
	for content, want := range map[string]string{
		`{"resources":[],"version_info":"0"}`:                      "0",
		`{"resources":[],"version_info":"` + long[:32] + `"}`:      long[:32],
		`{"resources":[],"version_info":"1","version_info":"2"}`:   "2",
		`{"resources":["` + long + long + `"],"version_info":"0"}`: "0",
		``:                                               "",
		`{}`:                                             "",
		`{"names":{}}`:                                   "",
		`{"resources":[],"version_info":""}`:             "",
		`{"resources":[],"version_info":"A1"}`:           "",
		`{"resources":[],"version_info":"x"}`:            "",
		`{"resources":[],"version_info":1}`:              "",
		`{"resources":[], "version_info":"1"}`:           "",
		`{"resources":[],"version_info": "1"}`:           "",
		`{"version_info":"1","resources":[]}`:            "",
		`{"version_info":"1"}`:                           "",
		`{"resources":[],"version_info":"1"} `:           "",
		"{\"resources\":[],\"version_info\":\"1\"}\n":    "",
		`{"resources":[],"version_info":"` + long + `"}`: "", // longer than any of ours
	} {
		if got := VersionOf([]byte(content)); got != want {
			t.Errorf("%s: got %q, expected %q", content, got, want)
		}
	}
}

// Setting a version changes nothing else, and leaves a file without a version unchanged.
func TestWithVersion(t *testing.T) {
	for content, want := range map[string]string{
		`{"resources":[],"version_info":"0"}`:                    `{"resources":[],"version_info":"abc"}`,
		`{"resources":[],"version_info":"0123456789abcdef"}`:     `{"resources":[],"version_info":"abc"}`,
		`{"resources":[],"version_info":"1","version_info":"1"}`: `{"resources":[],"version_info":"1","version_info":"abc"}`,
		`{"resources":[],"version_info":"x"}`:                    `{"resources":[],"version_info":"x"}`,
		`{"names":{}}`:                                           `{"names":{}}`,
		``:                                                       ``,
	} {
		before := []byte(content)
		if got := WithVersion(before, "abc"); string(got) != want {
			t.Errorf("%s: got %s, expected %s", content, got, want)
		}
		if string(before) != content {
			t.Errorf("%s was changed in place into %s", content, before)
		}
	}
}

// Differing returns the names without the expected value, in order, and ignores other names.
func TestDiffering(t *testing.T) {
	want := map[string]string{"d": "1", "a": "1", "b": "1", "c": "1"}
	live := map[string]string{"a": "1", "b": "2", "c": "", "x": "1"}

	if names := Differing(want, live); !slices.Equal(names, []string{"b", "c", "d"}) {
		t.Errorf("got %v", names)
	}
	if names := Differing(map[string]string{"a": "1"}, live); names == nil || len(names) > 0 {
		t.Errorf("got %#v, expected an empty list", names)
	}
}
