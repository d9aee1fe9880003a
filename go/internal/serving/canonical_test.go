package serving

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"clawker-fw/internal/must"
)

// The digest of loaded configuration does not depend on the order and the spaces in Envoy's output.
func TestCanonical(t *testing.T) {
	cases := map[string]struct{ shown, form string }{
		"nothing":       {`[]`, `[]`},
		"none":          {`null`, `[]`},
		"names":         {`[{"name": "b"}, {"name": "a-2"}, {"name": "a"}]`, `[{"name":"a"},{"name":"a-2"},{"name":"b"}]`},
		"keys":          {`[{"z": {"b": 1, "a": 2}, "name": "a"}]`, `[{"name":"a","z":{"a":2,"b":1}}]`},
		"numbers":       {`[{"name": "a", "n": [1.0, 1e3, 9007199254740993, 0.10]}]`, `[{"n":[1.0,1e3,9007199254740993,0.10],"name":"a"}]`},
		"other values":  {`[{"name": "a", "v": [true, false, null, {}, []]}]`, `[{"name":"a","v":[true,false,null,{},[]]}]`},
		"escaped keys":  {`[{"name": "a", "b\u0021": 1, "b ": 2, "b\"": 3}]`, `[{"b ":2,"b!":1,"b\"":3,"name":"a"}]`},
		"HTML and more": {`[{"name": "<&>", "t": "\u003cé\u0026\n"}]`, `[{"name":"<&>","t":"<é&\n"}]`},
	}
	for name, each := range cases {
		if found := canonical(readAll(t, each.shown)); found != hash(each.form) {
			t.Errorf("%s: got %s, expected that of %s", name, found, each.form)
		}
	}
}

// The digest of loaded configuration equals the digest of the `resources` array in clawker-fw's file.
func TestCanonicalIsWhatTheFileSays(t *testing.T) {
	const file = `{"resources":[{"@type":"t","name":"port-443"},{"@type":"t","name":"port-80","ports":[80]}],"version_info":"0"}`
	between := strings.TrimSuffix(strings.TrimPrefix(file, `{"resources":`), `,"version_info":"0"}`)
	const shown = `[{"name": "port-80", "ports": [80], "@type": "t"}, {"@type": "t", "name": "port-443"}]`

	if found := canonical(readAll(t, shown)); found != hash(between) {
		t.Errorf("got %s, expected that of %s", found, between)
	}
	if other := canonical(readAll(t, strings.Replace(shown, "[80]", "[81]", 1))); other == hash(between) {
		t.Errorf("another port has the same digest %s", other)
	}
}

// A text is read like encoding/json reads it, or refused like it.
func FuzzReadJSONText(f *testing.F) {
	for _, text := range []string{
		`{"a": [1, -2.5e3, true, false, null, {}, []], "b\u00e9": "\ud83d\ude00 \\ \" /"}`, ` [ ] `, `"a"`, `1`, ``, `{`, `[1,]`,
		`{"a" 1}`, `{"a": }`, `{,}`, `[1 2]`, `tru`, `01`, `"a`, `"\x"`, "\"\n\"", `{} {}`, `{a: 1}`, `[}`, "\"\xff\"", "\x00",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		read, err := readJSONText([]byte(text))
		if (err == nil) != json.Valid([]byte(text)) {
			t.Fatalf("%q: got %v", text, err)
		}
		var written bytes.Buffer
		if err == nil {
			read.write(&written)
			if !json.Valid(written.Bytes()) || !sameJSON(text, written.String()) {
				t.Fatalf("%q: written as %q", text, written.String())
			}
		}
	})
}

func sameJSON(one, other string) bool {
	var values [2]any
	for position, text := range []string{one, other} {
		decoder := json.NewDecoder(strings.NewReader(text))
		decoder.UseNumber()
		if decoder.Decode(&values[position]) != nil {
			return false
		}
	}
	return reflect.DeepEqual(values[0], values[1])
}

// readAll reads a JSON array.
func readAll(t *testing.T, text string) []value {
	t.Helper()
	read, err := readJSONText([]byte(text))
	must.Succeed(t, err)
	var found []value
	for _, each := range read.members {
		found = append(found, each.value)
	}
	return found
}

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}
