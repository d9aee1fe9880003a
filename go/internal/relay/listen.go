package relay

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"clawker-fw/internal/kernel"
	"clawker-fw/internal/sockets"
	"clawker-fw/internal/statussocket"
)

// backlog is how many connections wait for a port until they are accepted.
const backlog = 128

// Listen opens a listening socket for each port. They are bound to the interface of the publishing network, so nobody else
// can connect: also not to the same address through the other interface. The process that is executed next has them, too.
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

// listeners returns the sockets that this process was given by the one before it.
func listeners(numbers []string) ([]net.Listener, error) {
	var found []net.Listener
	for _, each := range numbers {
		number, err := strconv.Atoi(each)
		if err != nil {
			return nil, fmt.Errorf("not a socket: %q", each)
		}
		socket := os.NewFile(uintptr(number), "socket")
		listener, err := net.FileListener(socket)
		if err != nil {
			return nil, fmt.Errorf("socket %d: %w", number, err)
		}
		_ = socket.Close() // the listener has one of its own
		found = append(found, listener)
	}
	return found, nil
}

// Report is what can only be seen inside of a relay's container: what differs in its network, a program that does not answer,
// and its ports on which nobody listens.
type Report struct {
	Network []string `json:"network"`
	Closed  []uint16 `json:"closed"`
}

// Inspect reports on the relay in whose container it is called.
func (s Settings) Inspect() (Report, error) {
	open, err := sockets.Listening(sockets.Here, "tcp")
	report := Report{Network: kernel.Differences(s.Network()), Closed: []uint16{}}
	if err := askWhetherAlive(answerWithin); err != nil {
		report.Network = append(report.Network, fmt.Sprintf("the program does not answer: %v", err))
	}
	for _, port := range s.Ports {
		if !slices.Contains(open, netip.AddrPortFrom(s.OnPublishing.Addr(), port)) {
			report.Closed = append(report.Closed, port)
		}
	}
	return report, err
}

// answerWithin is how long a relay's program may take to say that it works.
const answerWithin = 3 * time.Second

// askWhetherAlive fails if the program of this relay does not answer. Its ports are open as long as it exists.
func askWhetherAlive(within time.Duration) error {
	var answer string
	if err := statussocket.Ask(aliveAt, within, nil, &answer); err != nil {
		return err
	}
	if answer != alright {
		return fmt.Errorf("it says %q", answer)
	}
	return nil
}
