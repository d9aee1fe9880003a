package serving

import (
	"bytes"
	"cmp"
	"encoding/json"
	"slices"
)

// readJSON reads a JSON value whose numbers stay as they are written.
func readJSON(text []byte, value any) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	return decoder.Decode(value)
}

// canonical returns the digest of Envoy's resources in canonical form: ordered by name, as JSON without spaces and
// with sorted keys. clawker-fw writes its files in this form, so the digests of loaded and desired configuration can
// be compared.
func canonical(resources []map[string]any) (string, error) {
	name := func(resource map[string]any) string {
		name, _ := resource["name"].(string)
		return name
	}
	ordered := append([]map[string]any{}, resources...)
	slices.SortFunc(ordered, func(one, other map[string]any) int { return cmp.Compare(name(one), name(other)) })
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(ordered)
	return digestOf(bytes.TrimSuffix(text.Bytes(), []byte("\n"))), err
}
