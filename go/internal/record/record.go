// Package record has what a commit says of the hot files, which digests and versions these have, and what was committed
// last.
package record

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"

	"clawker-fw/internal/volume"
)

// fileVersion matches the end of a DiscoveryResponse as clawker-fw writes it. The version identifies one commit and
// is not part of the file's meaning.
var fileVersion = regexp.MustCompile(`,"version_info":"([0-9a-f]+)"\}$`)

// fileVersionLength is the length of a file's end in which its version is searched.
const fileVersionLength = 64

// Unversioned is the version of a file in no commit.
const Unversioned = "0"

// VersionOf returns the version in a file, or "" if it has none.
func VersionOf(content []byte) string {
	found := fileVersion.FindSubmatch(content[max(0, len(content)-fileVersionLength):])
	if found == nil {
		return ""
	}
	return string(found[1])
}

// WithVersion returns the file with its version replaced. A file without a version is returned unchanged.
func WithVersion(content []byte, version string) []byte {
	before := VersionOf(content)
	if before == "" {
		return content
	}
	end := len(content) - len(before) - len(`"}`)
	return slices.Concat(content[:end], []byte(version), []byte(`"}`))
}

// NewVersion returns a random version, never used before.
func NewVersion() string {
	var random [16]byte
	rand.Read(random[:]) // never fails
	return hex.EncodeToString(random[:])
}

// DigestOf returns the SHA-256 of a file in hexadecimal, with its version replaced by a constant.
func DigestOf(content []byte) string {
	sum := sha256.Sum256(WithVersion(content, Unversioned))
	return hex.EncodeToString(sum[:])
}

// Differing returns the sorted names in wanted whose values in found differ or are missing.
func Differing(wanted, found map[string]string) []string {
	names := []string{}
	for name, value := range wanted {
		if found[name] != value {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Commit describes a complete set of hot files, and the live digest of each proven resource. It is stored as
// stage/commit.json, and as state/committed.json once the set is live.
type Commit struct {
	Version string            `json:"version"` // the files' version, never used before
	Live    map[string]string `json:"live"`
	Files   []StagedFile      `json:"files"` // in the order in which they are placed; every other file is removed
	Seconds float64           `json:"seconds"`
	Rules   json.RawMessage   `json:"rules,omitempty"` // count and digest of the rules, kept for clawker-fw
}

// StagedFile is a path below hot/ and the file's SHA-256 in hexadecimal, taken without its version.
type StagedFile struct {
	Path   string `json:"path"`
	Digest string `json:"sha256"`
}

// Read returns the content of the file in a folder of hot files. It fails if that has another digest.
func (f StagedFile) Read(folder string) ([]byte, error) {
	if !filepath.IsLocal(f.Path) {
		return nil, fmt.Errorf("path %q leaves the folder", f.Path)
	}
	content, err := volume.ReadFile(filepath.Join(folder, f.Path))
	if err == nil && DigestOf(content) != f.Digest {
		err = fmt.Errorf("%s has another digest", f.Path) // without the digest, which may be a secret's
	}
	return content, err
}

// Paths returns the paths of the files, in the order in which they are placed.
func (c Commit) Paths() []string {
	paths := make([]string, len(c.Files))
	for index, file := range c.Files {
		paths[index] = file.Path
	}
	return paths
}

// Path returns the path of the record of what was committed last.
func Path(root string) string { return filepath.Join(root, "state", "committed.json") }

// Read reads the record of a set, which has at least one file.
func Read(path string) (Commit, error) {
	var found Commit
	err := volume.ReadJSON(path, &found)
	if err == nil && len(found.Files) == 0 {
		err = fmt.Errorf("%s has no files", path)
	}
	return found, err
}
