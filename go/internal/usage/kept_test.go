package usage

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"clawker-fw/internal/must"
)

func opened(t *testing.T, root string) *kept {
	t.Helper()
	files := must.Get[[]*os.File](t)(Prepare(root, filepath.Join(root, "socket")))
	t.Cleanup(func() {
		for _, file := range files {
			file.Close()
		}
	})
	return &kept{files: files[1:]}
}

func written(t *testing.T, files *kept, table *Table) {
	t.Helper()
	must.Succeed(t, files.write(table))
}

// The next recorder continues the written record. An unchanged record is not written again.
func TestWhatIsWrittenOutlivesTheRecorder(t *testing.T) {
	root := t.TempDir()
	table, now := newTable()
	files := opened(t, root)
	take(table, ending("https a.test 443", "tls a.test", 1, 2))
	written(t, files, table)
	turn := files.turn
	written(t, files, table)
	if files.turn != turn {
		t.Error("the same was written again")
	}
	again := opened(t, root)
	left, ok := again.left()
	if !ok || !reflect.DeepEqual(left, table.History()) {
		t.Fatalf("%v: %+v", ok, left)
	}
	next := New(nil, now.now)
	next.Restore(left)
	if known := next.History(); !reflect.DeepEqual(known, left) {
		t.Errorf("%+v", known)
	}
}

// If the latest file is incomplete, the one before counts. An empty volume has nothing.
func TestACutFile(t *testing.T) {
	root := t.TempDir()
	if _, ok := opened(t, root).left(); ok {
		t.Fatal("something was left in an empty volume")
	}
	table, now := newTable()
	files := opened(t, root)
	for _, name := range []string{"a", "b", "c"} {
		now.advance(time.Minute)
		take(table, ending("https "+name+".test 443", "tls", 1, 2))
		written(t, files, table)
	}
	latest := files.files[(files.turn+1)%slots].Name()
	content := must.Get[[]byte](t)(os.ReadFile(latest))
	for size := range len(content) {
		must.Succeed(t, os.WriteFile(latest, content[:size], 0o600))
		left, ok := opened(t, root).left()
		if got := names(left); !ok || !slices.Equal(got, []string{"a.test", "b.test"}) {
			t.Fatalf("cut at %d: %v %v", size, ok, got)
		}
	}
}

// A shorter content over a longer one, not truncated yet, reads as the shorter one.
func TestALongerContentBefore(t *testing.T) {
	root := t.TempDir()
	table, _ := newTable()
	files := opened(t, root)
	take(table, ending("https a.test 443", "tls", 1, 2))
	written(t, files, table)
	file := must.Get[*os.File](t)(os.OpenFile(files.files[0].Name(), os.O_WRONLY|os.O_APPEND, 0))
	must.Get[int](t)(file.Write(bytes.Repeat([]byte{0xff}, 100)))
	file.Close()
	if left, ok := opened(t, root).left(); !ok || len(left.Uses) != 1 {
		t.Errorf("%v: %+v", ok, left)
	}
}

// A full table takes little room on the disk.
func TestTheFilesAreBounded(t *testing.T) {
	root := t.TempDir()
	table, _ := newTable()
	files := opened(t, root)
	for number := range mostUses + 1000 {
		name := strings.Repeat("a", 60) + "." + strings.Repeat("b", 60) + "." + strings.Repeat("c", 60) + "." + time.Duration(number).String()
		take(table, ending("https "+strings.ReplaceAll(name, "µ", "u")+".test 443", "tls", 1, 2))
	}
	written(t, files, table)
	info := must.Get[os.FileInfo](t)(os.Stat(files.files[0].Name()))
	known, _ := json.Marshal(table.History())
	if info.Size() > 2<<20 || len(known) > mostWritten/2 {
		t.Errorf("%d octets on the disk, %d when told", info.Size(), len(known))
	}
}

// fwctl asks over the socket. A restarted recorder continues.
func TestTheRecorderAnswers(t *testing.T) {
	root := t.TempDir()
	socket := filepath.Join(root, "socket")
	given := must.Get[[]*os.File](t)(Prepare(root, socket))
	keeper := must.Get[*Keeper](t)(Keep(given, []netip.Addr{ours}))
	take(keeper.Table, ending("https a.test 443", "tls a.test", 1, 2))
	known, err := Ask(socket)
	if err != nil || !slices.Equal(names(known), []string{"a.test"}) {
		t.Fatalf("%v: %+v", err, known)
	}
	must.Succeed(t, keeper.kept.write(keeper.Table))
	again := must.Get[*Keeper](t)(Keep(must.Get[[]*os.File](t)(Prepare(root, filepath.Join(root, "next"))), nil))
	if !slices.Equal(names(again.History()), []string{"a.test"}) {
		t.Errorf("a recorder that is started again knows %v", names(again.History()))
	}
}
