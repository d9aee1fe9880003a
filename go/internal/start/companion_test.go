package start

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"clawker-fw/internal/must"
)

// givenScene writes one letter to each given socket, if using it blocks nothing else.
const givenScene = "given sockets"

// A companion finds as many sockets as it was given.
func TestCompanionsFindTheirSockets(t *testing.T) {
	must.BeRoot(t, "to start a process of a user")
	script := filepath.Join(t.TempDir(), "fwctl")
	text := fmt.Sprintf("#!/bin/sh\n%s='%s' exec %s\n", sceneVariable, givenScene, os.Args[0])
	must.Succeed(t, os.WriteFile(script, []byte(text), 0o755))
	for count := range 3 {
		read, write, err := os.Pipe()
		must.Succeed(t, err)
		var sockets []*os.File
		for range count {
			sockets = append(sockets, write)
		}
		process, err := companion{0, []string{script}}.start(sockets...)
		must.Succeed(t, err)
		write.Close()
		got, err := io.ReadAll(read)
		if err != nil || string(got) != strings.Repeat("x", count) {
			t.Errorf("%d sockets: %q, %v", count, got, err)
		}
		if err := process.Wait(); err != nil {
			t.Error(err)
		}
		read.Close()
	}
}
