package lookups

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/miekg/dns"

	"clawker-fw/internal/hostname"
	"clawker-fw/internal/hotfile"
	"clawker-fw/internal/statussocket"
)

const (
	// longestDatagram is what a query can ask for at most (RFC 6891, section 6.2.5).
	longestDatagram = 4096
	longestQuery    = 512 // a name of 255 octets, and options

	mostReceived = 4096

	// mostStreams is how many connections it has at once: Envoy needs one for an answer that is too long for a datagram.
	mostStreams = 64
	// mostUnread bounds the octets of answers that wait until a connection takes them, of which each counts leastReply at least. It
	// has writeTime for each, and is ended otherwise: answers are handed over with the forwarder locked, so none may wait there.
	mostUnread = 1 << 18
	leastReply = 1 << 10
	writeTime  = time.Second

	giveUpEvery = 250 * time.Millisecond
)

// Forward answers queries until a socket fails. Its arguments are where it listens, whom it asks, the file with the
// subtrees that rules name, and the networks of agents and of the way out. Its keeper hands it the sockets, which outlive
// it: what is asked while it is started again waits in them. Envoy would remember for seconds that it was refused.
func Forward(arguments []string, given []*os.File) error {
	var problems [4]error
	listen, err := netip.ParseAddrPort(arguments[0])
	problems[0] = err
	upstream, err := netip.ParseAddrPort(arguments[1])
	problems[1] = err
	forwarder := newForwarder(exchangeWith(upstream), subtreesIn(arguments[2]))
	forwarder.agents, problems[2] = netip.ParsePrefix(arguments[3])
	forwarder.egress, problems[3] = netip.ParsePrefix(arguments[4])
	if err := errors.Join(problems[:]...); err != nil {
		return err
	}
	if len(given) == 0 {
		if given, err = Listen(listen); err != nil {
			return err
		}
	}
	if len(given) != 2 {
		return fmt.Errorf("the forwarder was given %d sockets, and not two", len(given))
	}
	datagrams, err := net.FilePacketConn(given[0])
	if err != nil {
		return err
	}
	streams, err := net.FileListener(given[1])
	if err != nil {
		return err
	}
	failed := make(chan error, 2)
	go func() { failed <- forwardDatagrams(forwarder, datagrams) }()
	go func() { failed <- forwardStreams(forwarder, streams) }()
	for late := time.Tick(giveUpEvery); ; {
		select {
		case err := <-failed:
			return err
		case <-late:
			forwarder.giveUp()
		}
	}
}

// Listen opens the forwarder's sockets, to be handed down.
func Listen(listen netip.AddrPort) ([]*os.File, error) {
	datagrams, err := statussocket.Handed(net.ListenUDP("udp", net.UDPAddrFromAddrPort(listen)))
	if err != nil {
		return nil, err
	}
	streams, err := statussocket.Handed(net.ListenTCP("tcp", net.TCPAddrFromAddrPort(listen)))
	return []*os.File{datagrams, streams}, err
}

func forwardDatagrams(forwarder *forwarder, socket net.PacketConn) error {
	received := make(chan func(), mostReceived) // the kernel has room for a few hundred
	defer close(received)
	go func() {
		for take := range received {
			take()
		}
	}()
	for {
		message := make([]byte, longestQuery)
		size, from, err := socket.ReadFrom(message)
		if errors.Is(err, syscall.ECONNREFUSED) {
			continue // who asked before has gone
		}
		if err != nil {
			return err
		}
		received <- func() {
			forwarder.take(message[:size], false, func(reply []byte) {
				_, _ = socket.WriteTo(reply, from) // an answer that is lost is asked for again
			})
		}
	}
}

func forwardStreams(forwarder *forwarder, listener net.Listener) error {
	room := make(chan struct{}, mostStreams)
	for {
		room <- struct{}{}
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer func() { <-room }()
			forwardStream(forwarder, connection)
		}()
	}
}

// forwardStream answers the queries of one connection (RFC 7766), until it ends or is silent.
func forwardStream(forwarder *forwarder, connection net.Conn) {
	defer connection.Close()
	client, unread := &dns.Conn{Conn: connection}, atomic.Int64{}
	message := make([]byte, longestQuery)
	for connection.SetReadDeadline(time.Now().Add(2*lookupTime)) == nil {
		size, err := client.Read(message)
		if err != nil {
			return
		}
		forwarder.take(message[:size], true, func(reply []byte) {
			octets := int64(max(len(reply), leastReply))
			if unread.Add(octets) > mostUnread {
				connection.Close() // Envoy asks again
				return
			}
			go func() {
				err := connection.SetWriteDeadline(time.Now().Add(writeTime))
				if err == nil {
					_, err = client.Write(reply)
				}
				if unread.Add(-octets); err != nil {
					connection.Close()
				}
			}()
		})
	}
}

// parseSubtrees reads the names in subtree rules: hot/subtrees/subtrees.json.
func parseSubtrees(content []byte) (map[string]struct{}, error) {
	var file struct {
		Names []string `json:"names"`
	}
	names := map[string]struct{}{}
	err := json.Unmarshal(content, &file)
	for _, each := range file.Names {
		names[each] = struct{}{}
	}
	return names, err
}

// unknownRule stands for the rule of every name while the file can't be read: there is room for few then.
const unknownRule = "?"

// subtreesIn returns what finds the nearest subtree rule in a file that a name is below or at, or "" if there is none.
func subtreesIn(path string) func(name string) string {
	file := hotfile.New(path, parseSubtrees)
	return func(name string) string {
		names, _ := file.Fresh()
		if names == nil {
			return unknownRule
		}
		for above := range hostname.Around(name) {
			if _, known := names[above]; known {
				return above
			}
		}
		return ""
	}
}
