package policy

import (
	"net"
	"path/filepath"
	"testing"

	"clawker-fw/internal/filetest"
	"clawker-fw/internal/hotfile"
	"clawker-fw/internal/must"
	"clawker-fw/internal/statussocket"
)

// A client of the socket receives the current status once: the live digest, the rejected files and the reason.
func TestStatusSocket(t *testing.T) {
	path, file := filetest.SocketPath(t), filepath.Join(t.TempDir(), "names.json")
	filetest.Put(t, file, listOf("a.test"))
	source := hotfile.New(file, Parse)
	source.Refresh()
	listener := must.Get[net.Listener](t)(statussocket.Listen(path))
	ended := make(chan struct{})
	go func() {
		statussocket.Tell(listener, func() any { return statusOf(source) })
		close(ended)
	}()
	digest := source.Status().Digest
	first := filetest.StatusFrom[Status](t, path)
	if first != (Status{first.Build, hotfile.Status{Digest: digest}, 1}) || len(first.Build) <= len("CoreDNS-") {
		t.Errorf("got %+v", first)
	}
	filetest.Put(t, file, "{}")

	second := filetest.StatusFrom[Status](t, path)

	if reason := file + ": names is missing; write {} for an empty list"; second != (Status{first.Build, hotfile.Status{Digest: digest, Refused: 1, Reason: reason}, 1}) {
		t.Errorf("got %+v", second)
	}
	listener.Close()
	<-ended
}
