package main

import (
	"io"
	"os"
	"path/filepath"
	"testing"
)

// A file is renamed, and deleted; one that is not there is a failure, not a usage error.
func TestMoveAndRemove(t *testing.T) {
	folder := t.TempDir()
	before, after := filepath.Join(folder, "before"), filepath.Join(folder, "after")
	if err := os.WriteFile(before, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		code      int
		arguments []string
	}{
		{exitDone, []string{"move", before, after}},
		{exitFailed, []string{"move", before, after}},
		{exitUsage, []string{"move", before}},
		{exitDone, []string{"remove", after}},
		{exitFailed, []string{"remove", after}},
		{exitUsage, []string{"remove"}},
	} {
		if code := execute(t.Context(), step.arguments, io.Discard, io.Discard); code != step.code {
			t.Errorf("%q ended with %d, expected %d", step.arguments, code, step.code)
		}
	}
}
