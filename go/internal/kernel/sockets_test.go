package kernel

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"clawker-fw/internal/must"
)

// Listening sockets are read, on an address or on all of them, and others are not.
func TestListening(t *testing.T) {
	folder := t.TempDir()
	must.Write(t, folder, must.Tree{
		"tcp": "  sl  local_address rem_address   st tx_queue\n" +
			"   0: 0A08D50A:01BB 00000000:0000 0A 00000000:00000000\n" +
			"   1: 0B08D50A:0050 0708D50A:8000 01 00000000:00000000\n",
		"tcp6": "header\n" +
			"   0: 00000000000000000000000000000000:0035 00000000000000000000000000000000:0000 0A 0\n" +
			"   1: 000080FE000000000000000000000001:0036 00000000000000000000000000000000:0000 0A 0\n",
		"udp": "header\n" +
			"   0: 0B08D50A:0050 0708D50A:8000 01 0\n" +
			"   1: 0B00007F:9DBD 00000000:0000 07 0\n",
	})
	for transport, want := range map[string][]string{"tcp": {"10.213.8.10:443", "0.0.0.0:53"}, "udp": {"127.0.0.11:40381"}} {
		got, err := Listening(folder, transport)
		var texts []string
		for _, place := range got {
			texts = append(texts, place.String())
		}
		if err != nil || !slices.Equal(texts, want) {
			t.Errorf("%s: %q, %v", transport, texts, err)
		}
	}
}

// An unreadable list of sockets is an error, never an empty one.
func TestUnreadableSockets(t *testing.T) {
	folder := t.TempDir()
	if got, err := Listening(folder, "tcp"); err == nil {
		t.Errorf("without a list: %v", got)
	}
	must.Succeed(t, os.Mkdir(filepath.Join(folder, "tcp"), 0o755))
	if got, err := Listening(folder, "tcp"); err == nil {
		t.Errorf("a folder: %v", got)
	}
}
