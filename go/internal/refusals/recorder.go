// Package refusals writes down what is refused to agents, by the kernel and by the program, with a share of the log for
// each.
package refusals

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"clawker-fw/internal/boot"
	"clawker-fw/internal/hotfile"
	"clawker-fw/internal/kernel"
	"clawker-fw/internal/page"
	"clawker-fw/internal/reason"
	"clawker-fw/internal/sockets"
	"clawker-fw/internal/statussocket"
	"clawker-fw/internal/usage"
)

// The recorder writes down what the kernel refuses to agents, as Envoy and CoreDNS do with what they refuse, and passes on
// what they write (journal.go). It remembers some of it for the page on which agents read why (package page). It is a process
// of its own beside the program, without privileges and with nothing but its sockets and what the program writes: `fwctl
// record`.

const recorderBuffer = 1 << 17

// Socket is where the recorder tells fwctl how many lines it has written. Only root may open it.
const Socket = "/tmp/lines.sock"

// AskWritten asks the recorder at a socket how many lines it has written.
func AskWritten(socket string) (Written, error) {
	var told Written
	err := statussocket.Ask(socket, askWithin, nil, &told)
	return told, err
}

const askWithin = 2 * time.Second

// Record writes a line for each refusal that it reads from the first file that it is given, and those of the program, which are in
// the second one, until that fails. At the third one it tells how many there are. If this sibling has a page, it serves that at a
// further one, and if it has to remember what is used, it does so in the rest.
func Record(root string, sibling boot.Sibling, given []*os.File, out io.Writer) error {
	sockets := 3
	if sibling.Page != nil {
		sockets++
	}
	if len(given) < sockets {
		return errors.New("record needs the sockets that its keeper gives it")
	}
	journal := newJournal(out)
	if sibling.Usage != nil {
		keeper, err := usage.Keep(given[sockets:], sibling.Usage.Except)
		if err != nil {
			return err
		}
		journal.used = keeper.Table
	}
	telling, err := net.FileListener(given[2])
	if err != nil {
		return fmt.Errorf("telling how many lines are written: %w", err)
	}
	defer telling.Close()
	go statussocket.Tell(telling, journal.status)
	failed := make(chan error)
	if sibling.Page != nil {
		store := page.NewStore(page.NewHolders(sibling.Limits.Subnet))
		journal.own = store.Add
		go func() { failed <- store.Serve(given[3], *sibling.Page) }()
	}
	go func() { failed <- journal.write() }()
	go func() { failed <- newRecorder(root, sibling, journal).read(given[0]) }()
	go func() {
		if err := journal.follow(given[1]); err != nil {
			failed <- err
		}
	}()
	for counting := time.Tick(countEvery); ; {
		select {
		case err := <-failed:
			return err
		case <-counting:
			journal.count()
		}
	}
}

func (r *recorder) read(socket io.Reader) error {
	buffer := make([]byte, recorderBuffer)
	for {
		size, err := socket.Read(buffer)
		if err != nil {
			return err
		}
		refusals, err := kernel.ReadRefusals(buffer[:size])
		if err != nil {
			return err
		}
		if err := r.record(refusals); err != nil {
			return err
		}
	}
}

type recorder struct {
	journal   *journal
	listening listening
	names     virtualNames
	private   []netip.Addr // at which nothing is for agents, whatever listens
	next      *uint32      // the number of the next copy, once there was one
}

func newRecorder(root string, sibling boot.Sibling, journal *journal) *recorder {
	var private []netip.Addr
	var shut uint16
	if sibling.Limits != nil {
		private, shut = sibling.Limits.Private, sibling.Limits.PrivatePort
	}
	return &recorder{
		journal: journal, private: private,
		listening: listening{folder: sockets.Here, except: shut},
		names:     virtualNames{hotfile.New(filepath.Join(root, "hot", "numbers", "numbers.json"), parseNumbers), sibling.Blocks},
	}
}

type line struct {
	Address  netip.Addr `json:"address"`
	Name     *string    `json:"name"`
	Port     uint16     `json:"port"`
	Protocol string     `json:"protocol"`
	Reason   string     `json:"reason"`
	Source   string     `json:"source"`
	Time     string     `json:"time"`
}

// record writes refusals down. While nothing listens at all, nothing is refused: the program is starting, or ending.
func (r *recorder) record(refusals []kernel.Refusal) error {
	if len(refusals) == 0 {
		return nil
	}
	lost := r.lost(refusals)
	if err := r.listening.refresh(); err != nil || !r.listening.anything() {
		return err
	}
	r.journal.lose(lost)
	for _, each := range refusals {
		name := r.names.at(each.Place.Addr())
		text, err := json.Marshal(line{
			Address: each.Place.Addr(), Port: each.Place.Port(), Source: each.Source.String(),
			Name: name, Protocol: map[byte]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp"}[each.Protocol],
			Reason: r.reason(each, name), Time: written(r.journal.now()),
		})
		if err != nil {
			return err
		}
		r.journal.add(each.Source.Addr(), append(text, '\n'), 1)
	}
	return nil
}

// lost returns how many copies are missing before and between some that were read: the kernel had no room for them, or they
// could not be read. Nobody knows whose they were.
func (r *recorder) lost(read []kernel.Refusal) (lost int) {
	for _, each := range read {
		if r.next != nil && each.Number > *r.next { // the number may begin anew after 2^32
			lost += int(each.Number - *r.next)
		}
		next := each.Number + 1
		r.next = &next
	}
	return lost
}

// reason returns why something was refused. At a virtual address on which something listens, its name has a rule, but
// for another port or protocol. Elsewhere no name is known, and no rule is for this port.
func (r *recorder) reason(refused kernel.Refusal, name *string) string {
	switch {
	case slices.Contains(r.private, refused.Place.Addr()):
		return reason.NoRule
	case refused.Protocol == unix.IPPROTO_TCP && r.listening.at(refused.Place):
		return reason.Limit
	case name != nil && r.listening.on(refused.Place.Addr()):
		return reason.WrongPort
	}
	return reason.NoRule
}

// virtualNames knows which name each virtual address stands for, or has stood for: hot/numbers/numbers.json.
type virtualNames struct {
	file   *hotfile.File[map[uint32]string]
	blocks []netip.Prefix
}

func parseNumbers(content []byte) (map[uint32]string, error) {
	var file struct {
		Names map[string]uint32 `json:"names"`
	}
	names := map[uint32]string{}
	err := json.Unmarshal(content, &file)
	for name, number := range file.Names {
		names[number] = name
	}
	return names, err
}

// at returns the name of an address, or nil if it has none. Addresses are numbered from the first one of the first block.
// Without a file that can be read, no name is known.
func (v *virtualNames) at(address netip.Addr) *string {
	if len(v.blocks) == 0 {
		return nil
	}
	names, status := v.file.Fresh()
	if name, known := names[number(address)-number(v.blocks[0].Addr())]; known && status.Reason == "" {
		return &name
	}
	return nil
}

func number(address netip.Addr) uint32 { return binary.BigEndian.Uint32(address.AsSlice()) }

// readingShare is the part of the time that may be spent on reading what listens, as one in so many.
const readingShare = 100

// listening knows at which places programs in this network namespace listen for TCP connections, and at which addresses
// they take datagrams as well. It is read again when it is asked, but not so often that many ports cost much.
type listening struct {
	folder string // with the kernel's lists of sockets
	except uint16 // a port that is not for agents, or 0
	places map[netip.AddrPort]bool
	hosts  map[netip.Addr]bool
	fresh  time.Time // until when it need not be read again
}

func (l *listening) refresh() error {
	started := time.Now()
	if started.Before(l.fresh) {
		return nil
	}
	l.places, l.hosts = map[netip.AddrPort]bool{}, map[netip.Addr]bool{}
	for _, transport := range []string{"tcp", "udp"} {
		places, err := sockets.Listening(l.folder, transport)
		if err != nil {
			return err
		}
		for _, place := range places {
			if l.except != 0 && place.Port() == l.except {
				continue
			}
			l.hosts[place.Addr()] = true
			if transport == "tcp" {
				l.places[place] = true
			}
		}
	}
	ended := time.Now()
	l.fresh = ended.Add(readingShare * ended.Sub(started))
	return nil
}

func (l *listening) anything() bool { return len(l.places) > 0 }

func (l *listening) at(place netip.AddrPort) bool {
	return l.places[place] || l.places[netip.AddrPortFrom(netip.IPv4Unspecified(), place.Port())]
}

// on reports whether something listens at an address, on any port, or takes datagrams there.
func (l *listening) on(address netip.Addr) bool { return l.hosts[address] }
