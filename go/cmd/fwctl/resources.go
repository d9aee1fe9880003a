package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"slices"
)

// Resource is a hot file, and the way to prove that the program has loaded it, as declared in boot/sibling.json.
//
// If Hashed, the program reports the SHA-256 of the bytes that it has read. If Envoy is set, the digest is taken over
// the configuration that Envoy has loaded, in canonical form. A resource with neither is read only by fwctl itself
// and needs no proof.
type Resource struct {
	Name   string      `json:"name"`
	Path   string      `json:"path"` // below hot/
	Hashed bool        `json:"hashed,omitempty"`
	Envoy  *EnvoyProof `json:"envoy,omitempty"`
}

// EnvoyProof locates a resource in Envoy's admin interface: in `/config_dump?resource=Dump`, at the path At of each
// entry; and in the statistics below the name Statistics, which have the version of the last accepted file. A layer of
// the runtime is in no dump: the text of its only key, Runtime, counts.
type EnvoyProof struct {
	Dump       string   `json:"dump"`
	At         []string `json:"at"`
	Statistics string   `json:"statistics"`
	Runtime    string   `json:"runtime,omitempty"`
}

// fileVersion matches the end of a DiscoveryResponse as clawker-fw writes it. The version identifies one commit and
// is not part of the file's meaning.
var fileVersion = regexp.MustCompile(`,"version_info":"([0-9a-f]+)"\}$`)

// fileVersionLength is the length of a file's end in which its version is searched.
const fileVersionLength = 64

const unversioned = "0"

// versionOf returns the version in a file, or "" if it has none.
func versionOf(content []byte) string {
	found := fileVersion.FindSubmatch(content[max(0, len(content)-fileVersionLength):])
	if found == nil {
		return ""
	}
	return string(found[1])
}

// withVersion returns the file with its version replaced. A file without a version is returned unchanged.
func withVersion(content []byte, version string) []byte {
	before := versionOf(content)
	if before == "" {
		return content
	}
	end := len(content) - len(before) - len(`"}`)
	return slices.Concat(content[:end], []byte(version), []byte(`"}`))
}

// newVersion returns a random version, never used before.
func newVersion() string {
	var random [16]byte
	rand.Read(random[:]) // never fails
	return hex.EncodeToString(random[:])
}

// digestOf returns the SHA-256 of a file in hexadecimal, with its version replaced by a constant.
func digestOf(content []byte) string {
	sum := sha256.Sum256(withVersion(content, unversioned))
	return hex.EncodeToString(sum[:])
}

// canonical returns the digest of Envoy's resources in canonical form: ordered by name, as JSON without spaces and
// with sorted keys. clawker-fw writes its files in this form, so the digests of loaded and desired configuration can
// be compared.
func canonical(resources []value) string {
	name := func(resource value) []byte {
		if found, there := resource.field("name"); there && bytes.HasPrefix(found.text, []byte(`"`)) {
			return plain(found.text)
		}
		return nil
	}
	slices.SortFunc(resources, func(one, other value) int { return bytes.Compare(name(one), name(other)) })
	all := value{kind: '['}
	for _, each := range resources {
		all.members = append(all.members, member{value: each})
	}
	var text bytes.Buffer
	all.write(&text)
	sum := sha256.Sum256(text.Bytes())
	return hex.EncodeToString(sum[:])
}

// differing returns the sorted names in wanted whose values in found differ or are missing.
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
