// Package relay forwards connections to one agent's published ports, from the network on which Docker publishes
// them to the agent's address, never the other way.
//
// The kernel confines it, not this program. Its sockets are bound to the interface of the publishing network, so
// agents can't connect; the namespace forwards nothing and has no route beyond its two networks, unless the ports
// are reachable from outside; and the program has no privileges.
package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"clawker-fw/internal/boot"
	"clawker-fw/internal/kernel"
	"clawker-fw/internal/statussocket"
)

// Socketed is the environment variable with the program's sockets, one for each port.
const Socketed = "RELAY_SOCKETS"

// bounds limit a relay's clients, and an agent that never closes. Agents can't connect to the relay.
type bounds struct {
	connections int           // of all ports; a further one is reset
	dial        time.Duration // the limit for connecting to the agent
	half        time.Duration // the limit for the other end to close, once one has
}

// aliveAt is the program's address for checks, which only its network namespace has (unix(7), abstract).
const aliveAt = "@relay"

var usual = bounds{connections: 256, dial: 10 * time.Second, half: time.Hour}

// Carry accepts connections at the given sockets, and forwards each to the same port of the agent.
func Carry(words []string) error {
	settings, err := Parse(words)
	if err != nil {
		return err
	}
	sockets, err := listeners(strings.Split(os.Getenv(Socketed), ","))
	if err != nil {
		return err
	}
	if len(sockets) != len(settings.Ports) {
		return errors.New("a relay needs a socket for each port")
	}
	alive, err := net.Listen("unix", aliveAt)
	if err != nil {
		return err
	}
	go statussocket.Tell(alive, func() any { return "ok" })
	ended := make(chan error)
	room := make(chan struct{}, usual.connections)
	for number, port := range settings.Ports {
		go func() { ended <- serve(sockets[number], netip.AddrPortFrom(settings.Agent, port), room, usual) }()
	}
	return <-ended // Docker restarts it
}

func serve(listener net.Listener, agent netip.AddrPort, room chan struct{}, limits bounds) error {
	for {
		client, err := listener.Accept()
		if slices.ContainsFunc([]error{syscall.ECONNABORTED, syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM},
			func(passing error) bool { return errors.Is(err, passing) }) {
			time.Sleep(100 * time.Millisecond)
			continue
		}
		if err != nil {
			return err
		}
		select {
		case room <- struct{}{}:
			go func() {
				defer func() { <-room }()
				pass(client.(*net.TCPConn), agent, limits)
			}()
		default:
			reset(client.(*net.TCPConn))
		}
	}
}

// pass forwards between a client and the agent until both have closed, or either fails. Keepalive detects a lost
// end. Each end sees the other's close or reset.
func pass(client *net.TCPConn, agent netip.AddrPort, limits bounds) {
	within, cancel := context.WithTimeout(context.Background(), limits.dial)
	defer cancel()
	dialed, err := new(net.Dialer).DialContext(within, "tcp4", agent.String())
	if err != nil {
		reset(client)
		return
	}
	server := dialed.(*net.TCPConn)
	var both sync.WaitGroup
	var failed atomic.Bool
	for _, way := range [][2]*net.TCPConn{{client, server}, {server, client}} {
		both.Go(func() {
			// Hiding the connection's methods avoids a pipe, because file descriptors are few.
			_, err := io.Copy(struct{ io.Writer }{way[1]}, struct{ io.Reader }{way[0]})
			if err == nil && errors.Join(way[1].CloseWrite(), way[1].SetReadDeadline(time.Now().Add(limits.half))) == nil {
				return
			}
			failed.Store(true)
			reset(client)
			reset(server)
		})
	}
	both.Wait()
	if !failed.Load() {
		_ = client.Close()
		_ = server.Close()
	}
}

func reset(connection *net.TCPConn) {
	_ = connection.SetLinger(0)
	_ = connection.Close()
}

const backlog = 128

// Listen opens a listening socket for each port, bound to the interface of the publishing network: nobody can
// connect to the same address through the other interface. The next executed process inherits them.
func (s Settings) Listen() ([]int, error) {
	link, err := kernel.LinkHolding(s.OnPublishing.Addr())
	if err != nil {
		return nil, err
	}
	var opened []int
	for _, port := range s.Ports {
		socket, err := listenOn(link.Attrs().Name, netip.AddrPortFrom(s.OnPublishing.Addr(), port))
		if err != nil {
			return nil, fmt.Errorf("listening on port %d: %w", port, err)
		}
		opened = append(opened, socket)
	}
	return opened, nil
}

func listenOn(device string, place netip.AddrPort) (int, error) {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return 0, err
	}
	if err := unix.BindToDevice(socket, device); err != nil {
		return 0, err
	}
	if err := unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return 0, err
	}
	if err := unix.Bind(socket, &unix.SockaddrInet4{Port: int(place.Port()), Addr: place.Addr().As4()}); err != nil {
		return 0, err
	}
	return socket, unix.Listen(socket, backlog)
}

func listeners(numbers []string) ([]net.Listener, error) {
	var opened []net.Listener
	for _, text := range numbers {
		number, err := strconv.Atoi(text)
		if err != nil {
			return nil, fmt.Errorf("not a socket: %q", text)
		}
		socket := os.NewFile(uintptr(number), "socket")
		listener, err := net.FileListener(socket)
		if err != nil {
			return nil, fmt.Errorf("socket %d: %w", number, err)
		}
		_ = socket.Close() // the listener has its own
		opened = append(opened, listener)
	}
	return opened, nil
}

// Report is a relay's state from inside: network differences or a silent program, and ports without a listener.
type Report struct {
	Network []string `json:"network"`
	Closed  []uint16 `json:"closed"`
}

// Inspect reports on the relay of this container.
func (s Settings) Inspect() (Report, error) {
	open, err := kernel.Listening(kernel.SocketLists, "tcp")
	report := Report{Network: kernel.Differences(s.Network()), Closed: []uint16{}}
	if err := askWhetherAlive(3 * time.Second); err != nil {
		report.Network = append(report.Network, fmt.Sprintf("the program does not answer: %v", err))
	}
	for _, port := range s.Ports {
		if !slices.Contains(open, netip.AddrPortFrom(s.OnPublishing.Addr(), port)) {
			report.Closed = append(report.Closed, port)
		}
	}
	return report, err
}

func askWhetherAlive(within time.Duration) error {
	var answer string // a stopped or hung program gives none
	return statussocket.Ask(aliveAt, within, nil, &answer)
}

// Settings are a relay's arguments. They are visible in its container's command.
type Settings struct {
	OnAgents     netip.Prefix // its address on the agent network, and that network's size
	OnPublishing netip.Prefix // its address on the publishing network, and that network's size
	Gateway      *netip.Addr  // of the publishing network, if answers may leave it
	Agent        netip.Addr   // whose ports are published
	Ports        []uint16
}

// Parse reads the arguments: ADDRESS/BITS on the agent network, ADDRESS/BITS on the publishing network, GATEWAY or
// -, the AGENT's address, and each PORT.
func Parse(words []string) (Settings, error) {
	var read Settings
	if len(words) < 5 {
		return read, errors.New("a relay needs its addresses on two networks, a gateway or -, an agent, and ports")
	}
	var problems [4]error
	read.OnAgents, problems[0] = netip.ParsePrefix(words[0])
	read.OnPublishing, problems[1] = netip.ParsePrefix(words[1])
	if words[2] != "-" {
		gateway, err := netip.ParseAddr(words[2])
		read.Gateway, problems[2] = &gateway, err
	}
	read.Agent, problems[3] = netip.ParseAddr(words[3])
	if err := errors.Join(problems[:]...); err != nil {
		return read, err
	}
	if !read.OnAgents.Contains(read.Agent) {
		return read, fmt.Errorf("%s is not on the agent network %s", read.Agent, read.OnAgents.Masked())
	}
	for _, word := range words[4:] {
		port, err := strconv.ParseUint(word, 10, 16)
		if err != nil || port == 0 {
			return read, fmt.Errorf("not a port: %q", word)
		}
		read.Ports = append(read.Ports, uint16(port))
	}
	return read, nil
}

// interfaceSettings are the settings of both interfaces (net.ipv4.conf): nothing is forwarded, a packet is dropped
// if its answer would leave through the other interface, and each interface answers only for its own address.
var interfaceSettings = map[string]int{
	"accept_local": 0, "accept_source_route": 0, "arp_accept": 0, "arp_announce": 2, "arp_filter": 0, "arp_ignore": 1,
	"drop_gratuitous_arp": 0, "forwarding": 0, "proxy_arp": 0, "proxy_arp_pvlan": 0, "route_localnet": 0, "rp_filter": 1,
}

// resolver is Docker's, the target of its packet filter. A relay resolves no names.
var resolver = netip.MustParseAddr("127.0.0.11")

// Network returns a relay's network, in the form of a firewall container's.
func (s Settings) Network() boot.Sibling {
	return boot.Sibling{
		Name: "relay",
		Interfaces: []boot.Interface{
			{Address: s.OnAgents.Addr(), Subnet: s.OnAgents.Masked()},
			{Address: s.OnPublishing.Addr(), Subnet: s.OnPublishing.Masked(), Gateway: s.Gateway},
		},
		Settings: interfaceSettings,
		Resolver: &resolver,
		Apart: &boot.Apart{
			Agent: boot.Pair{Subnet: s.OnAgents.Masked(), Only: s.Agent},
			// The Docker host has the network's first address, whether or not answers may leave it.
			Engine: boot.Pair{Subnet: s.OnPublishing.Masked(), Only: s.OnPublishing.Masked().Addr().Next()},
		},
	}
}
