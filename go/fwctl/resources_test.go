package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// A file's version is recognised only at its very end, and only in the form that clawker-fw and commits write.
func TestVersionOf(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", 3)
	for content, wanted := range map[string]string{
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
		if found := versionOf([]byte(content)); found != wanted {
			t.Errorf("%s: got %q, expected %q", content, found, wanted)
		}
	}
}

// Setting a version changes nothing else, and leaves a file without a version unchanged.
func TestWithVersion(t *testing.T) {
	for content, wanted := range map[string]string{
		`{"resources":[],"version_info":"0"}`:                    `{"resources":[],"version_info":"abc"}`,
		`{"resources":[],"version_info":"0123456789abcdef"}`:     `{"resources":[],"version_info":"abc"}`,
		`{"resources":[],"version_info":"1","version_info":"1"}`: `{"resources":[],"version_info":"1","version_info":"abc"}`,
		`{"resources":[],"version_info":"x"}`:                    `{"resources":[],"version_info":"x"}`,
		`{"names":{}}`:                                           `{"names":{}}`,
		``:                                                       ``,
	} {
		before := []byte(content)
		if found := withVersion(before, "abc"); string(found) != wanted {
			t.Errorf("%s: got %s, expected %s", content, found, wanted)
		}
		if string(before) != content {
			t.Errorf("%s was changed in place into %s", content, before)
		}
	}
}

// The digest of a file is taken over all its bytes, with the version replaced by 0.
func TestDigestOf(t *testing.T) {
	for content, hashed := range map[string]string{
		`{"resources":[],"version_info":"0"}`:    `{"resources":[],"version_info":"0"}`,
		`{"resources":[],"version_info":"beef"}`: `{"resources":[],"version_info":"0"}`,
		`{"resources":[],"version_info":"x"}`:    `{"resources":[],"version_info":"x"}`,
		`{"names":{}}`:                           `{"names":{}}`,
		``:                                       ``,
	} {
		if found := digestOf([]byte(content)); found != hash(hashed) {
			t.Errorf("%s: got %s", content, found)
		}
	}
}

// A new version has the form of a file's version, and is never the same twice.
func TestNewVersion(t *testing.T) {
	seen := []string{unversioned}
	for range 100 {
		version := newVersion()
		content := withVersion([]byte(`{"resources":[],"version_info":"0"}`), version)
		if versionOf(content) != version || slices.Contains(seen, version) {
			t.Fatalf("got %s after %v", version, seen)
		}
		seen = append(seen, version)
	}
}

// The digest of loaded configuration does not depend on the order and the spaces in Envoy's output.
func TestCanonical(t *testing.T) {
	cases := map[string]struct{ shown, form string }{
		"nothing":       {`[]`, `[]`},
		"none":          {`null`, `[]`},
		"names":         {`[{"name": "b"}, {"name": "a-2"}, {"name": "a"}]`, `[{"name":"a"},{"name":"a-2"},{"name":"b"}]`},
		"keys":          {`[{"z": {"b": 1, "a": 2}, "name": "a"}]`, `[{"name":"a","z":{"a":2,"b":1}}]`},
		"numbers":       {`[{"name": "a", "n": [1.0, 1e3, 9007199254740993, 0.10]}]`, `[{"n":[1.0,1e3,9007199254740993,0.10],"name":"a"}]`},
		"other values":  {`[{"name": "a", "v": [true, false, null, {}, []]}]`, `[{"name":"a","v":[true,false,null,{},[]]}]`},
		"HTML and more": {`[{"name": "<&>", "t": "\u003cé\u0026\n"}]`, `[{"name":"<&>","t":"<é&\n"}]`},
	}
	for name, each := range cases {
		var resources []map[string]any
		decoder := json.NewDecoder(strings.NewReader(each.shown))
		decoder.UseNumber()
		if err := decoder.Decode(&resources); err != nil {
			t.Fatal(err)
		}

		found, err := canonical(resources)

		if err != nil || found != hash(each.form) {
			t.Errorf("%s: got %s, %v, expected that of %s", name, found, err, each.form)
		}
	}
}

// The digest of loaded configuration equals the digest of the `resources` array in clawker-fw's file.
func TestCanonicalIsWhatTheFileSays(t *testing.T) {
	const file = `{"resources":[{"@type":"t","name":"port-443"},{"@type":"t","name":"port-80","ports":[80]}],"version_info":"0"}`
	between := strings.TrimSuffix(strings.TrimPrefix(file, `{"resources":`), `,"version_info":"0"}`)
	shown := []map[string]any{
		{"name": "port-80", "ports": []any{json.Number("80")}, "@type": "t"}, {"@type": "t", "name": "port-443"},
	}

	found, err := canonical(shown)

	if err != nil || found != hash(between) {
		t.Errorf("got %s, %v, expected that of %s", found, err, between)
	}
	shown[0]["ports"] = []any{json.Number("81")}
	if other, err := canonical(shown); err != nil || other == found {
		t.Errorf("another port has the same digest %s, %v", other, err)
	}
}

// differing returns names without the wanted value, in order, and ignores names that are not wanted.
func TestDiffering(t *testing.T) {
	wanted := map[string]string{"d": "1", "a": "1", "b": "1", "c": "1"}
	found := map[string]string{"a": "1", "b": "2", "c": "", "x": "1"}

	if names := differing(wanted, found); !slices.Equal(names, []string{"b", "c", "d"}) {
		t.Errorf("got %v", names)
	}
	if names := differing(map[string]string{"a": "1"}, found); names == nil || len(names) > 0 {
		t.Errorf("got %#v, expected an empty list", names)
	}
}
