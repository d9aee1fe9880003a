package start

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"clawker-fw/internal/boot"
	"clawker-fw/internal/must"
	"clawker-fw/internal/signing"
	"clawker-fw/internal/users"
)

// givenScene writes one letter to each socket that it was given, if using that blocks nothing else.
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

// The signer is started where the boot settings say so, as the only one of its group, with its two sockets: what is asked while
// it is started again waits in them.
func TestSignerIsKept(t *testing.T) {
	must.BeRoot(t, "to give a socket to a group")
	folder := must.Get[string](t)(os.MkdirTemp("", "signer"))
	t.Cleanup(func() { os.RemoveAll(folder) })
	root := t.TempDir()
	if kept, err := keptBy(root, boot.Sibling{}); err != nil || len(kept) != 0 {
		t.Errorf("without settings: %v, %v", kept, err)
	}
	kept, err := keptBy(root, boot.Sibling{Signer: &boot.SignerSettings{Folder: folder}})
	if err != nil || len(kept) != 1 {
		t.Fatalf("%v, %v", kept, err)
	}
	signer := kept[0]
	if len(signer.sockets) != 5 || signer.group != users.Signers || signer.name() != "signer of certificates" {
		t.Errorf("%+v", signer)
	}
	if found, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", signer.sockets[3].Fd())); err != nil || !strings.HasPrefix(found, "/memfd:") {
		t.Errorf("secrets are kept in %s, %v", found, err)
	}
	if at, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", signer.sockets[4].Fd())); err != nil || at != signing.Resting(root) {
		t.Errorf("secrets at rest are kept in %s, %v", at, err)
	}
	for _, each := range signer.sockets[:3] {
		if listens, err := syscall.GetsockoptInt(int(each.Fd()), syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN); err != nil || listens != 1 {
			t.Errorf("%s: %d, %v", each.Name(), listens, err)
		}
	}
}
