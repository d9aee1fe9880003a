package policy

import (
	"path/filepath"
	"testing"

	"clawker-fw/internal/hotfile"
	"clawker-fw/internal/hotfile/hotfiletest"
	"clawker-fw/internal/must"
	"clawker-fw/internal/statussocket"
)

// A client of the socket receives the current status once: the live digest, the rejected files and the reason.
func TestStatusSocket(t *testing.T) {
	path, file := hotfiletest.SocketPath(t), filepath.Join(t.TempDir(), "names.json")
	hotfiletest.Write(t, file, listOf("a.test"))
	source := hotfile.New(file, Parse)
	must.Succeed(t, source.Load())
	listener, err := statussocket.Listen(path)
	must.Succeed(t, err)
	ended := make(chan struct{})
	go func() {
		statussocket.Tell(listener, func() any { return statusOf(source) })
		close(ended)
	}()
	digest := source.Status().Digest
	first := hotfiletest.StatusFrom[Status](t, path)
	if first != (Status{first.Build, hotfile.Status{Digest: digest}, 1}) || len(first.Build) <= len("CoreDNS-") {
		t.Errorf("got %+v", first)
	}
	hotfiletest.Write(t, file, "{}")

	second := hotfiletest.StatusFrom[Status](t, path)

	if reason := file + ": names is missing; write {} for an empty list"; second != (Status{first.Build, hotfile.Status{Digest: digest, Refused: 1, Reason: reason}, 1}) {
		t.Errorf("got %+v", second)
	}
	listener.Close()
	<-ended
}
