package start

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"clawker-fw/internal/must"
)

// stalled returns a full pipe and its reader.
func stalled(t *testing.T) (reader, full *os.File) {
	t.Helper()
	var ends [2]int
	must.Succeed(t, unix.Pipe2(ends[:], unix.O_CLOEXEC))
	must.Succeed(t, unix.SetNonblock(ends[1], true))
	for size := 1 << 12; size > 0; {
		if _, err := unix.Write(ends[1], bytes.Repeat([]byte{'.'}, size)); err != nil {
			size /= 2
		}
	}
	must.Succeed(t, unix.SetNonblock(ends[1], false))
	return os.NewFile(uintptr(ends[0]), "reader"), os.NewFile(uintptr(ends[1]), "full")
}

// Writers to a log with a stalled reader never wait. When it reads again, it gets the first messages.
func TestALogThatIsNotRead(t *testing.T) {
	reader, full := stalled(t)
	log := must.Get[*os.File](t)(neverWaits(full))
	written := make(chan error)
	go func() {
		_, err := io.Copy(log, strings.NewReader("first\n"+strings.Repeat("more\n", 1<<18)))
		written <- err
	}()
	select {
	case err := <-written:
		must.Succeed(t, err)
	case <-time.After(10 * time.Second):
		t.Fatal("it waits for the reader")
	}
	must.Succeed(t, log.Close())
	for text := []byte{}; !bytes.Contains(text, []byte("first\nmore\n")); {
		buffer := make([]byte, 1<<12)
		size, err := reader.Read(buffer)
		if err != nil {
			t.Fatalf("%v: it was not told", err)
		}
		text = append(text, buffer[:size]...)
	}
}

// An ended helper is restarted, even if nobody reads the log.
func TestRestartsNeedNoReader(t *testing.T) {
	reader, full := stalled(t)
	defer reader.Close()
	defer full.Close()
	status, _ := servedTo(t, "with a recorder that ends", full)
	if status["Ended"] != "/tmp/once" {
		t.Errorf("%q", status)
	}
}
