package main

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"testing"
)

// tree maps the paths in a folder to their contents.
type tree map[string]string

func write(t *testing.T, folder string, files tree) {
	t.Helper()
	for path, content := range files {
		if err := writeFile(filepath.Join(folder, path), []byte(content)); err != nil {
			t.Fatal(err)
		}
	}
}

func read(t *testing.T, folder string) tree {
	t.Helper()
	paths, err := filesBelow(folder)
	if err != nil {
		t.Fatal(err)
	}
	files := tree{}
	for _, path := range paths {
		content, err := os.ReadFile(filepath.Join(folder, path))
		if err != nil {
			t.Fatal(err)
		}
		files[path] = string(content)
	}
	return files
}

func expect(t *testing.T, folder string, wanted tree) {
	t.Helper()
	if found := read(t, folder); !maps.Equal(found, wanted) {
		t.Errorf("%s has %v, expected %v", filepath.Base(folder), found, wanted)
	}
}

func expectAbsent(t *testing.T, root string, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := os.Lstat(filepath.Join(root, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there (%v)", name, err)
		}
	}
}
