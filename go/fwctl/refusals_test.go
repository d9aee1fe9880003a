package main

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func expectRefused(t *testing.T, root string, program Program, wanted ...string) {
	t.Helper()
	found, err := refusedUpdates(root, program)
	if err != nil || !slices.Equal(found, wanted) {
		t.Errorf("refused are %q, expected %q (%v)", found, wanted, err)
	}
}

// What somebody puts into hot/ and the program refuses is told, even when the right file lies there again.
func TestRefusedUpdates(t *testing.T) {
	root, files := newVolume(t)
	program := newReader(t, root)
	program.refuses = []string{"rubbish"}
	expectRefused(t, root, program)

	write(t, filepath.Join(root, "hot"), tree{routes: "rubbish"})
	expectRefused(t, root, program, "rds/http-80")
	write(t, filepath.Join(root, "hot"), tree{routes: files[routes]})
	expectRefused(t, root, program, "rds/http-80")
}

// A commit begins a new count, whether it was taken or refused: what it had refused has been put right.
func TestCommitsBeginANewCount(t *testing.T) {
	for _, content := range []string{"2 " + routes, "rubbish"} {
		root, files := newVolume(t)
		program := newReader(t, root)
		program.refuses = []string{"bad", "rubbish"}
		write(t, filepath.Join(root, "hot"), tree{routes: "bad"})
		expectRefused(t, root, program, "rds/http-80")
		write(t, filepath.Join(root, "hot"), tree{routes: files[routes]})
		wanted, files := set("2", routes, listeners)
		files[routes] = content
		wanted.Files[0].Digest = digestOf(content)
		stage(t, root, wanted, files)

		if _, err := commit(root, program, time.Now); err != nil {
			t.Fatal(err)
		}

		expectRefused(t, root, program)
	}
}

// A program that was started anew counts from nothing, and so do we.
func TestRefusalsOfAnotherProcess(t *testing.T) {
	root, _ := newVolume(t)
	program := newReader(t, root)
	text, err := json.Marshal(Refusals{"another", map[string]int{"rds/http-80": 5}})
	if err != nil {
		t.Fatal(err)
	}
	write(t, root, tree{"state/refusals.json": string(text)})
	program.rejections["rds/http-80"] = 1

	expectRefused(t, root, program, "rds/http-80")
}

// A record that can't be read is an error: it may not hide a refusal.
func TestRefusalsUnreadable(t *testing.T) {
	root, _ := newVolume(t)
	write(t, root, tree{"state/refusals.json": "{"})

	if found, err := refusedUpdates(root, newReader(t, root)); err == nil {
		t.Errorf("got %q", found)
	}
}
