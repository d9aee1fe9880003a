package start

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// givenScene writes one letter to each socket that it was given, if using that blocks nothing else.
const givenScene = "given sockets"

// A companion finds as many sockets as it was given.
func TestCompanionsFindTheirSockets(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this needs root, to start a process of a user")
	}
	script := filepath.Join(t.TempDir(), "fwctl")
	text := fmt.Sprintf("#!/bin/sh\n%s='%s' exec %s\n", sceneVariable, givenScene, os.Args[0])
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	for count := range 3 {
		read, write, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		var sockets []*os.File
		for range count {
			sockets = append(sockets, write)
		}
		process, err := companion{0, []string{script}}.start(sockets...)
		if err != nil {
			t.Fatal(err)
		}
		write.Close()
		found, err := io.ReadAll(read)
		if err != nil || string(found) != strings.Repeat("x", count) {
			t.Errorf("%d sockets: %q, %v", count, found, err)
		}
		if err := process.Wait(); err != nil {
			t.Error(err)
		}
		read.Close()
	}
}
