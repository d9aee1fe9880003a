package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Resource is a hot file and how it is proven that the program has loaded it, as the tool says in boot/sibling.json.
//
// When Hashed, the program answers the SHA-256 of what it has read. With Envoy it is the configuration that Envoy has
// loaded, in canonical form. A resource with neither is read by this helper alone, and needs no proof.
type Resource struct {
	Name   string      `json:"name"`
	Path   string      `json:"path"` // below hot/
	Hashed bool        `json:"hashed,omitempty"`
	Envoy  *EnvoyProof `json:"envoy,omitempty"`
}

// EnvoyProof is where Envoy shows a resource: `/config_dump?resource=Dump`, at a path in each of its entries, and
// below a name in the statistics, where the version of the file stands that was accepted last.
type EnvoyProof struct {
	Dump       string   `json:"dump"`
	At         []string `json:"at"`
	Statistics string   `json:"statistics"`
}

// fileVersion is the end of a DiscoveryResponse as the tool writes it: a version, which stands for one commit and is
// no part of what the file says.
var fileVersion = regexp.MustCompile(`,"version_info":"([0-9a-f]+)"\}$`)

// fileVersionLength is how far from its end a file may have a version.
const fileVersionLength = 64

const unversioned = "0"

// versionOf is the version in a file, "" where it has none.
func versionOf(content []byte) string {
	found := fileVersion.FindSubmatch(content[max(0, len(content)-fileVersionLength):])
	if found == nil {
		return ""
	}
	return string(found[1])
}

// withVersion is the file with another version; one without stays as it is.
func withVersion(content []byte, version string) []byte {
	before := versionOf(content)
	if before == "" {
		return content
	}
	end := len(content) - len(before) - len(`"}`)
	return slices.Concat(content[:end], []byte(version), []byte(`"}`))
}

// newVersion is one that nobody has used before.
func newVersion() string {
	var random [16]byte
	rand.Read(random[:]) // never fails
	return hex.EncodeToString(random[:])
}

// digestOf is the SHA-256 of what a file says, in hexadecimal: of its bytes but for the version.
func digestOf(content []byte) string {
	sum := sha256.Sum256(withVersion(content, unversioned))
	return hex.EncodeToString(sum[:])
}

// canonical is the digest of a list of Envoy's resources: in the order of their names, as JSON without spaces and with
// sorted keys. The tool writes its files in this form, so what was loaded can be compared with what was asked for.
func canonical(resources []map[string]any) (string, error) {
	slices.SortFunc(resources, func(one, other map[string]any) int {
		return strings.Compare(fmt.Sprint(one["name"]), fmt.Sprint(other["name"]))
	})
	if resources == nil {
		resources = []map[string]any{}
	}
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(resources); err != nil {
		return "", err
	}
	sum := sha256.Sum256(bytes.TrimSuffix(text.Bytes(), []byte("\n")))
	return hex.EncodeToString(sum[:]), nil
}

// differing lists the names at which two maps differ, of those in the first one.
func differing(wanted, found map[string]string) []string {
	names := []string{}
	for name, value := range wanted {
		if found[name] != value {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
