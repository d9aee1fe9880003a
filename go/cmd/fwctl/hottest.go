package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"clawker-fw/internal/boot"
	"clawker-fw/internal/filetest"
	"clawker-fw/internal/volume"
)

const (
	routes    = "rds/routes.json"
	listeners = "lds/listeners.json"
	added     = "policy/names.json"
)

// resources covers every kind of proof: by version and loaded content, and by the hash of the bytes read.
var resources = []boot.Resource{
	{Name: "routes", Path: routes, Envoy: &boot.EnvoyProof{Statistics: "routes"}},
	{Name: "names", Path: added, Hashed: true},
	{Name: "listeners", Path: listeners, Envoy: &boot.EnvoyProof{Statistics: "listeners"}},
}

// content returns a file as clawker-fw writes it. Only Envoy's files have a version.
func content(set, path string) string {
	if path == added {
		return fmt.Sprintf(`{"names":{"%s":{}}}`, set)
	}
	return fmt.Sprintf(`{"resources":[{"name":"%s of set %s"}],"version_info":"0"}`, path, set)
}

// set returns a commit of files in the given order, with the live digest of each resource.
func set(name string, paths ...string) (Commit, filetest.Tree) {
	wanted, files := Commit{Version: unversioned, Live: map[string]string{}, Seconds: 5}, filetest.Tree{}
	for _, path := range paths {
		files[path] = content(name, path)
		wanted.Files = append(wanted.Files, StagedFile{path, digestOf([]byte(files[path]))})
		for _, resource := range resources {
			if resource.Path == path {
				wanted.Live[resource.Name] = digestOf([]byte(files[path]))
			}
		}
	}
	return wanted, files
}

func record(t *testing.T, path string, commit Commit) {
	t.Helper()
	text, err := json.Marshal(commit)
	if err != nil {
		t.Fatal(err)
	}
	if err := volume.WriteFile(path, text); err != nil {
		t.Fatal(err)
	}
}

// newVolume returns a volume in which set 1 of the routes and listeners is live.
func newVolume(t *testing.T) (string, filetest.Tree) {
	t.Helper()
	root := t.TempDir()
	wanted, files := set("1", routes, listeners)
	filetest.Write(t, filepath.Join(root, "hot"), files)
	record(t, committedRecord(root), wanted)
	return root, files
}

// reader is a program that loads hot/ whenever it is asked. It can reject, ignore or hang at certain contents.
type reader struct {
	hot        string
	refuses    []string
	ignores    []string
	hangs      []string
	deaf       func(asked int) bool // whether a question, by its number, is not answered
	slow       int                  // so many questions are answered without a look at the files
	broken     error
	asked      int
	seen       filetest.Tree
	taken      filetest.Tree
	rejections map[string]int
	looked     []filetest.Tree
	evidence   Evidence
}

func newReader(t *testing.T, root string) *reader {
	t.Helper()
	return startReader(root)
}

func startReader(root string) *reader {
	program := &reader{
		hot: filepath.Join(root, "hot"), seen: filetest.Tree{}, taken: filetest.Tree{}, rejections: map[string]int{},
		evidence: Evidence{"listeners": {"now", "digest"}},
	}
	program.look()
	return program
}

// clock advances only by one second with each request to the program, answered or not.
func (r *reader) clock() time.Time { return time.Unix(int64(r.asked), 0) }

// answers loads changed files, and reports whether the program answers this request.
func (r *reader) answers() error {
	r.asked++
	if r.deaf != nil && r.deaf(r.asked) {
		return errors.New("no answer")
	}
	if r.asked > r.slow && r.broken == nil {
		r.look()
	}
	return r.broken
}

func (r *reader) look() {
	now := filetest.Tree{}
	for _, resource := range resources {
		text, err := os.ReadFile(filepath.Join(r.hot, resource.Path))
		if errors.Is(err, fs.ErrNotExist) {
			delete(r.taken, resource.Name)
			continue
		}
		if err != nil {
			panic(err)
		}
		now[resource.Path] = string(text)
		plain := string(withVersion(text, unversioned))
		switch {
		case r.seen[resource.Path] == string(text), slices.Contains(r.ignores, plain):
		case slices.Contains(r.hangs, plain):
			r.broken = errors.New("no answer any more")
		case slices.Contains(r.refuses, plain):
			r.rejections[resource.Name]++
		default:
			r.taken[resource.Name] = string(text)
		}
	}
	r.seen = now
	r.looked = append(r.looked, now)
}

func (r *reader) Build() (string, error) { return "reader", r.broken }

func (r *reader) Live(resources []boot.Resource) (map[string]string, error) {
	if err := r.answers(); err != nil {
		return nil, err
	}
	live := map[string]string{}
	for _, resource := range resources {
		if text, there := r.taken[resource.Name]; there {
			live[resource.Name] = digestOf([]byte(text))
		}
	}
	return live, nil
}

func (r *reader) Evidence() Evidence { return r.evidence }

func (r *reader) Versions(resources []boot.Resource) (map[string]string, error) {
	if err := r.answers(); err != nil {
		return nil, err
	}
	versions := map[string]string{}
	for _, resource := range resources {
		if resource.Envoy != nil {
			versions[resource.Name] = versionOf([]byte(r.taken[resource.Name]))
		}
	}
	return versions, nil
}

func (r *reader) Rejections([]boot.Resource) (map[string]int, error) {
	if err := r.answers(); err != nil {
		return nil, err
	}
	return maps.Clone(r.rejections), nil
}

func (r *reader) Reason() string { return "rejected by the test" }

func (r *reader) Telemetry() (Telemetry, error) { return Telemetry{}, r.broken }

func (r *reader) Serves() error { return r.broken }

func (r *reader) Suppressed() (Suppressed, error) { return Suppressed{}, r.broken }

func (r *reader) Connections() (int, error) { return len(r.seen), r.broken }
