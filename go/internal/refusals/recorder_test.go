package refusals

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"clawker-fw/internal/boot"
	"clawker-fw/internal/hotfile"
	"clawker-fw/internal/kernel"
	"clawker-fw/internal/must"
	"clawker-fw/internal/nettest"
	"clawker-fw/internal/reason"
)

// In the block of nettest.NewSibling: the first address, one whose name has a rule, and one whose name no longer
// has one.
var (
	virtualFirst = netip.MustParseAddr("10.213.8.64")
	virtualOpen  = netip.MustParseAddr("10.213.8.71")
	virtualGone  = netip.MustParseAddr("10.213.8.200")
)

const numbersFile = `{"names":{"open.test":7,"gone.test":136},"next":137}`

// recordingSibling is a limited container whose refusals this thread records.
type recordingSibling struct {
	*recorder
	asAgent func(func())
	socket  *os.File
	written bytes.Buffer
}

func newRecording(t *testing.T, limits boot.Limits) *recordingSibling {
	t.Helper()
	sibling := &recordingSibling{asAgent: nettest.LimitedSibling(t, limits, kernel.Shape)}
	root := t.TempDir()
	must.Write(t, root, must.Tree{"hot/numbers/numbers.json": numbersFile})
	sibling.recorder = newRecorder(root, withLimits(limits), newJournal(&sibling.written))
	socket := must.Open[*os.File](t)(kernel.ListenForRefusals())
	sibling.socket = socket
	return sibling
}

// lines returns the lines about all refusals so far.
func (r *recordingSibling) lines(t *testing.T) []line {
	t.Helper()
	r.written.Reset()
	buffer := make([]byte, recorderBuffer)
	for {
		must.Succeed(t, r.socket.SetReadDeadline(time.Now().Add(500*time.Millisecond)))
		size, err := r.socket.Read(buffer)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		must.Succeed(t, err)
		refusals := must.Get[[]kernel.Refusal](t)(kernel.ReadRefusals(buffer[:size]))
		must.Succeed(t, r.record(refusals))
	}
	must.Succeed(t, r.journal.flush())
	var lines []line
	for text := range strings.Lines(r.written.String()) {
		var entry line
		must.Succeed(t, json.Unmarshal([]byte(text), &entry))
		lines = append(lines, entry)
	}
	return lines
}

func listenAt(t *testing.T, place netip.AddrPort) {
	t.Helper()
	must.Open[net.Listener](t)(net.Listen("tcp4", place.String()))
}

// A connection or datagram to a closed port leaves one line each, with the agent, the target and the reason, and
// is refused at once. Forwarded traffic leaves none, and neither do CoreDNS's attempts.
func TestRefusalsAreRecorded(t *testing.T) {
	limits := nettest.SmallLimits()
	recorder := newRecording(t, limits)
	listenAt(t, netip.AddrPortFrom(virtualOpen, 22))
	listenAt(t, netip.AddrPortFrom(nettest.OnAgents, 443))
	for _, want := range []struct {
		protocol string
		place    netip.AddrPort
		name     string
		reason   string
	}{
		{"tcp", netip.AddrPortFrom(nettest.OnAgents, 1), "", reason.NoRule},
		{"tcp", netip.AddrPortFrom(nettest.OnAgents, 65535), "", reason.NoRule},
		{"tcp", netip.AddrPortFrom(virtualOpen, 80), "open.test", reason.WrongPort},
		{"udp", netip.AddrPortFrom(virtualOpen, 22), "open.test", reason.WrongPort},
		{"tcp", netip.AddrPortFrom(virtualGone, 22), "gone.test", reason.NoRule},
		{"tcp", netip.AddrPortFrom(virtualFirst, 443), "", reason.NoRule},
		{"udp", netip.AddrPortFrom(nettest.OnAgents, 443), "", reason.NoRule},
	} {
		var source string
		recorder.asAgent(func() {
			began := time.Now()
			source = refusedAt(t, want.protocol, want.place)
			if took := time.Since(began); took > 500*time.Millisecond {
				t.Errorf("%s: refused after %s", want.place, took)
			}
		})
		got := recorder.lines(t)
		if len(got) != 1 {
			t.Fatalf("%s %s: %v", want.protocol, want.place, got)
		}
		entry := got[0]
		name := ""
		if entry.Name != nil {
			name = *entry.Name
		}
		if entry.Address != want.place.Addr() || entry.Port != want.place.Port() || entry.Protocol != want.protocol ||
			entry.Source != source || entry.Reason != want.reason || name != want.name {
			t.Errorf("%v: got %+v of %q", want, entry, name)
		}
		if _, err := time.Parse(time.RFC3339, entry.Time); err != nil {
			t.Error(err)
		}
	}
	recorder.asAgent(func() {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: limits.Except[0].AsSlice()}, Timeout: time.Second}
		if _, err := dialer.Dial("tcp4", netip.AddrPortFrom(nettest.OnAgents, 1).String()); !errors.Is(err, unix.ECONNREFUSED) {
			t.Error(err)
		}
		connection := must.Get[net.Conn](t)(net.DialTimeout("tcp4", netip.AddrPortFrom(nettest.OnAgents, 443).String(), time.Second))
		connection.Close()
	})
	if got := recorder.lines(t); len(got) != 0 {
		t.Errorf("got %+v", got)
	}
}

// refusedAt uses an address over a protocol, expects a refusal, and returns its source.
func refusedAt(t *testing.T, protocol string, place netip.AddrPort) string {
	t.Helper()
	if protocol == "tcp" {
		// Bound before, because a refused connection has no address.
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: nettest.Agent.AsSlice(), Port: 33333}, Timeout: time.Second}
		if _, err := dialer.Dial("tcp4", place.String()); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("%s: %v", place, err)
		}
		return netip.AddrPortFrom(nettest.Agent, 33333).String()
	}
	dialer := net.Dialer{LocalAddr: &net.UDPAddr{IP: nettest.Agent.AsSlice()}}
	connection := must.Open[net.Conn](t)(dialer.Dial("udp4", place.String()))
	_, _ = connection.Write([]byte("x"))
	_ = connection.SetReadDeadline(time.Now().Add(time.Second))
	if _, err := connection.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("%s: %v", place, err)
	}
	return connection.LocalAddr().String()
}

// A datagram is recorded with any header options, and also at an address that is closed to agents.
func TestRefusedDatagramsAreRecorded(t *testing.T) {
	limits := nettest.SmallLimits()
	limits.DatagramsPerSecond = 1000
	private := netip.MustParseAddr("10.213.8.10")
	limits.Private = []netip.Addr{private}
	recorder := newRecording(t, limits)
	listenAt(t, netip.AddrPortFrom(nettest.OnAgents, 443))
	const recordRoute, noOperation = "\x07\x27\x04", "\x01"
	for _, options := range []string{"", recordRoute + strings.Repeat("\x00", 36) + noOperation} {
		place := netip.AddrPortFrom(private, 9)
		recorder.asAgent(func() {
			dialer := net.Dialer{LocalAddr: &net.UDPAddr{IP: nettest.Agent.AsSlice()}}
			connection := must.Get[net.Conn](t)(dialer.Dial("udp4", place.String()))
			defer connection.Close()
			socket, err := connection.(*net.UDPConn).File()
			must.Succeed(t, err)
			defer socket.Close()
			must.Succeed(t, unix.SetsockoptString(int(socket.Fd()), unix.IPPROTO_IP, unix.IP_OPTIONS, options))
			must.Get[int](t)(connection.Write([]byte("x")))
		})
		got := recorder.lines(t)
		if len(got) != 1 || got[0].Protocol != "udp" || got[0].Address != place.Addr() || got[0].Reason != reason.NoRule {
			t.Errorf("%d octets of options: got %+v", len(options), got)
		}
	}
}

// A connection above an agent's limit is recorded too, with another reason.
func TestRefusalsByLimitsAreRecorded(t *testing.T) {
	limits := nettest.SmallLimits()
	recorder := newRecording(t, limits)
	place := netip.AddrPortFrom(nettest.OnAgents, 443)
	listenAt(t, place)
	recorder.asAgent(func() {
		for range limits.Connections + 2 {
			dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: nettest.Agent.AsSlice()}, Timeout: time.Second}
			if connection, err := dialer.Dial("tcp4", place.String()); err == nil {
				t.Cleanup(func() { connection.Close() })
			}
		}
	})
	got := recorder.lines(t)
	if len(got) != 2 {
		t.Fatalf("got %+v", got)
	}
	for _, entry := range got {
		if entry.Reason != reason.Limit || netip.AddrPortFrom(entry.Address, entry.Port) != place {
			t.Errorf("got %+v", entry)
		}
	}
}

// If the kernel has no room for copies of its refusals, the lost ones are counted, without an agent.
func TestLostCopiesAreCounted(t *testing.T) {
	limits := nettest.SmallLimits()
	limits.ConnectionsPerSecond = 10_000
	recorder := newRecording(t, limits)
	listenAt(t, netip.AddrPortFrom(nettest.OnAgents, 443))
	must.Succeed(t, unix.SetsockoptInt(int(recorder.socket.Fd()), unix.SOL_SOCKET, unix.SO_RCVBUF, 1))
	const refused = 2000
	refuse := func(count int) {
		recorder.asAgent(func() {
			for range count {
				dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: nettest.Agent.AsSlice()}, Timeout: time.Second}
				if _, err := dialer.Dial("tcp4", netip.AddrPortFrom(nettest.OnAgents, 1).String()); !errors.Is(err, unix.ECONNREFUSED) {
					t.Fatal(err)
				}
			}
		})
	}
	refuse(1)
	written := len(recorder.lines(t))
	refuse(refused)
	written += len(recorder.lines(t))
	refuse(1) // by which the number is known of those that were lost last
	written += len(recorder.lines(t))
	counted := suppressedOf(recorder.journal, netip.Addr{})
	written += suppressedOf(recorder.journal, nettest.Agent)
	if counted == 0 || written+counted != refused+2 {
		t.Errorf("%d are on record and %d counted, of %d", written, counted, refused+2)
	}
}

// A private address is closed to agents, even with a listener: their connections are not above a limit. So is a
// private port, and the recorder's listener there does not mean that the program listens.
func TestRefusalsAtPrivatePlaces(t *testing.T) {
	place := netip.AddrPortFrom(nettest.OnAgents, 443)
	const program = "   1: 0A08D50A:0035 00000000:0000 0A 0\n"
	for name, test := range map[string]struct {
		limits  boot.Limits
		listens string
		want    string
	}{
		"a public place":                 {boot.Limits{}, "", reason.Limit},
		"a private address":              {boot.Limits{Private: []netip.Addr{place.Addr()}}, "", reason.NoRule},
		"a private port, at the start":   {boot.Limits{PrivatePort: place.Port()}, "", ""},
		"a private port, with a program": {boot.Limits{PrivatePort: place.Port()}, program, reason.NoRule},
	} {
		var written bytes.Buffer
		recorder := newRecorder(t.TempDir(), withLimits(test.limits), newJournal(&written))
		recorder.listening.folder = listeningFolder(t, test.listens)
		refused := kernel.Refusal{Protocol: unix.IPPROTO_TCP, Source: netip.AddrPortFrom(nettest.Agent, 1024), Place: place}
		must.Succeed(t, errors.Join(recorder.record([]kernel.Refusal{refused}), recorder.journal.flush()))
		if text := written.String(); (text != "") != (test.want != "") || !strings.Contains(text, test.want) {
			t.Errorf("%s: %q", name, text)
		}
	}
}

// listeningFolder returns a folder with the kernel's list of sockets: one that listens at the shared address, and
// further lines.
func listeningFolder(t *testing.T, further string) string {
	t.Helper()
	folder := t.TempDir()
	must.Write(t, folder, must.Tree{"udp": "", "tcp": "  sl  local_address rem_address   st tx_queue\n" +
		"   0: 0A08D50A:01BB 00000000:0000 0A 00000000:00000000\n" + further})
	return folder
}

// Names are read again from a changed file, and an unreadable file has none.
func TestVirtualNames(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "numbers.json")
	names := virtualNames{hotfile.New(path, parseNumbers), nettest.NewSibling().Blocks}
	for index, content := range []string{"", numbersFile, "{", `{"names":{"other.test":7},"next":8}`} {
		if content != "" { // in place by a rename, like each commit; all files of the engine may have the same time
			must.Write(t, root, must.Tree{"fresh": content})
			must.Succeed(t, errors.Join(
				os.Chtimes(filepath.Join(root, "fresh"), time.Unix(0, 0), time.Unix(0, 0)),
				os.Rename(filepath.Join(root, "fresh"), path),
			))
		}
		got, want := names.at(virtualOpen), map[int]string{1: "open.test", 3: "other.test"}[index]
		if (got == nil) != (want == "") || got != nil && *got != want {
			t.Errorf("%q: %v", content, got)
		}
		if got := names.at(nettest.OnAgents); got != nil {
			t.Errorf("%q: the shared address is %s", content, *got)
		}
	}
	if got := (&virtualNames{file: hotfile.New(path, parseNumbers)}).at(virtualOpen); got != nil {
		t.Errorf("without blocks it is %s", *got)
	}
}

// Many datagrams to closed ports are each recorded, or counted for their agent. The kernel's own limit on answers
// (icmp(7), icmp_ratelimit) would allow about one a second.
func TestEachRefusedDatagramIsWrittenOrCounted(t *testing.T) {
	const flood = 500
	recorder := newRecording(t, nettest.SmallLimits())
	listenAt(t, netip.AddrPortFrom(nettest.OnAgents, 443))
	must.Succeed(t, os.WriteFile("/proc/sys/net/ipv4/icmp_ratemask", []byte("6160"), 0)) // as the engine sets it

	recorder.asAgent(func() {
		for from, datagrams := range map[netip.Addr]int{nettest.Agent: flood, nettest.OtherAgent: 20} {
			local := &net.UDPAddr{IP: from.AsSlice()}
			socket := must.Open[*net.UDPConn](t)(net.ListenUDP("udp4", local))
			for number := range datagrams {
				place := netip.AddrPortFrom(nettest.OnAgents, uint16(1000+number))
				must.Get[int](t)(socket.WriteToUDPAddrPort([]byte("x"), place))
			}
		}
	})
	lines := map[netip.Addr]int{}
	for _, entry := range recorder.lines(t) {
		lines[netip.MustParseAddrPort(entry.Source).Addr()]++
	}
	suppressed := suppressedOf(recorder.journal, nettest.Agent)
	counted := must.Get[[]kernel.Refused](t)(kernel.RefusedSources())
	if len(counted) != 1 || lines[nettest.Agent]+suppressed+int(counted[0].Datagrams) != flood {
		t.Errorf("%d lines, %d more suppressed, %+v", lines[nettest.Agent], suppressed, counted)
	}
	if lines[nettest.OtherAgent] != 20 {
		t.Errorf("%d of another agent's 20", lines[nettest.OtherAgent])
	}
}
