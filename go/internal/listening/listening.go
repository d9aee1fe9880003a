// Package listening ends a CoreDNS that no longer listens, so that the engine starts it again.
//
// CoreDNS goes on without a listener whose accept or read has failed: it writes a line, and nobody is answered at that
// transport any more. It tells no plugin, and whether the kernel knows of a listening socket can't be mistaken, however busy
// the machine is. So the kernel is asked.
package listening

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coredns/caddy"
)

// lookEvery is how often the kernel is asked, and missedAtMost how often in a row a socket may be missing: the kernel's
// lists can change while they are read.
const (
	lookEvery    = time.Second
	missedAtMost = 2
)

// sockets is the folder in which the kernel lists the sockets of this network (proc(5)).
const sockets = "/proc/self/net"

// The states that a socket has while it listens (linux/tcp_states.h). One for datagrams has no connection.
var listens = map[string]string{"tcp": "0A", "udp": "07"}

// EndWithout ends the process with exit code 1 once a server has started and does not listen any more, but for a shutdown.
func EndWithout() {
	var shutdown atomic.Bool
	caddy.RegisterEventHook("listening", func(event caddy.EventName, about any) error {
		switch event {
		case caddy.ShutdownEvent:
			shutdown.Store(true)
		case caddy.InstanceStartupEvent:
			for _, server := range about.(*caddy.Instance).Servers() {
				for _, place := range []net.Addr{server.Addr(), server.LocalAddr()} {
					go func() {
						awaitEnd(sockets, place)
						if !shutdown.Load() {
							fmt.Fprintf(os.Stderr, "coredns: it does not listen at %s (%s) any more\n", place, place.Network())
							os.Exit(1)
						}
					}()
				}
			}
		}
		return nil
	})
}

// awaitEnd returns when nobody listens at a place any more.
func awaitEnd(folder string, place net.Addr) {
	for missed := 0; missed < missedAtMost; time.Sleep(lookEvery) {
		if there, err := listensAt(folder, place); there || err != nil { // without a free file, nobody can tell
			missed = 0
		} else {
			missed++
		}
	}
}

// listensAt reports whether a socket listens at the port of a place.
func listensAt(folder string, place net.Addr) (bool, error) {
	transport := place.Network()
	_, port, err := net.SplitHostPort(place.String())
	if err != nil {
		return false, err
	}
	number, err := net.LookupPort(transport, port)
	if err != nil {
		return false, err
	}
	wanted := fmt.Sprintf(":%04X", number)
	for _, family := range []string{"6", ""} {
		file, err := os.Open(filepath.Join(folder, transport+family))
		if os.IsNotExist(err) && family == "6" { // a kernel without IPv6
			continue
		}
		if err != nil {
			return false, err
		}
		there, err := lists(file, wanted, listens[transport])
		if file.Close(); there || err != nil {
			return there, err
		}
	}
	return false, nil
}

// lists reports whether a list of sockets has one with this port and state. Those that listen come first.
func lists(list *os.File, port, state string) (bool, error) {
	lines := bufio.NewScanner(list)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) > 3 && strings.HasSuffix(fields[1], port) && fields[3] == state {
			return true, nil
		}
	}
	return false, lines.Err()
}
