package serving

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
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
	for name, test := range cases {
		if got := digestAs(t, test.shown); got != hash(test.form) {
			t.Errorf("%s: got %s, expected that of %s", name, got, test.form)
		}
	}
}

// The digest of loaded configuration equals the digest of the `resources` array in clawker-fw's file.
func TestCanonicalIsWhatTheFileSays(t *testing.T) {
	const file = `{"resources":[{"@type":"t","name":"port-443"},{"@type":"t","name":"port-80","ports":[80]}],"version_info":"0"}`
	between := strings.TrimSuffix(strings.TrimPrefix(file, `{"resources":`), `,"version_info":"0"}`)
	const shown = `[{"name": "port-80", "ports": [80], "@type": "t"}, {"@type": "t", "name": "port-443"}]`

	if got := digestAs(t, shown); got != hash(between) {
		t.Errorf("got %s, expected that of %s", got, between)
	}
	if other := digestAs(t, strings.Replace(shown, "[80]", "[81]", 1)); other == hash(between) {
		t.Errorf("another port has the same digest %s", other)
	}
}

// digestAs returns the digest of a JSON array.
func digestAs(t *testing.T, text string) string {
	t.Helper()
	var read []map[string]any
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	must.Succeed(t, decoder.Decode(&read))
	return must.Get[string](t)(canonical(read))
}

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}
