package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"clawker-fw/internal/statussocket"
)

// Socketed is the environment variable that names the sockets which a relay's program is given, one for each port.
const Socketed = "RELAY_SOCKETS"

// bounds are what one relay takes on. An agent can't open a connection through it, so these are for its clients, and for an
// agent that ends none.
type bounds struct {
	connections int           // at once, of all ports together; a further one is reset
	dial        time.Duration // for the agent to take a connection
	idle        time.Duration // for nothing to be sent in either direction
}

// aliveAt is the address at which the program of a relay answers, of a kind that only its own network has (unix(7), abstract).
const aliveAt = "@relay"

// alright is the program's answer: one that has been stopped, or hangs, gives none.
const alright = "ok"

var usual = bounds{connections: 256, dial: 10 * time.Second, idle: time.Hour}

// buffered is how much is read at once in one direction.
const buffered = 32 << 10

// Carry accepts connections at the sockets that this process was given, and passes each on to the same port of the agent.
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
	go statussocket.Tell(alive, func() any { return alright })
	ended := make(chan error)
	room := make(chan struct{}, usual.connections)
	for number, port := range settings.Ports {
		go func() { ended <- serve(sockets[number], netip.AddrPortFrom(settings.Agent, port), room, usual) }()
	}
	return <-ended // the engine starts it again
}

// serve passes each connection on, as long as there is room. What is beyond that is reset.
func serve(listener net.Listener, agent netip.AddrPort, room chan struct{}, limits bounds) error {
	for {
		client, err := listener.Accept()
		if errors.Is(err, syscall.ECONNABORTED) {
			continue
		}
		if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.ENOMEM) {
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

// pass connects a client with the agent until both have ended what they send, either fails, or both are silent for too long.
// What one end does to its connection (the end of what it sends, a reset) the other one sees.
func pass(client *net.TCPConn, agent netip.AddrPort, limits bounds) {
	within, cancel := context.WithTimeout(context.Background(), limits.dial)
	defer cancel()
	dialed, err := new(net.Dialer).DialContext(within, "tcp4", agent.String())
	if err != nil {
		reset(client)
		return
	}
	server := dialed.(*net.TCPConn)
	var last atomic.Int64
	last.Store(time.Now().UnixNano())
	var both sync.WaitGroup
	var failed atomic.Bool
	for _, way := range [][2]*net.TCPConn{{client, server}, {server, client}} {
		both.Add(1)
		go func() {
			defer both.Done()
			if copyUntilEnd(way[1], way[0], &last, limits.idle) == nil && way[1].CloseWrite() == nil {
				return
			}
			failed.Store(true)
			reset(client)
			reset(server)
		}()
	}
	both.Wait()
	if !failed.Load() {
		_ = client.Close()
		_ = server.Close()
	}
}

var errIdle = errors.New("nothing was sent for too long")

// copyUntilEnd copies what a connection sends until its end. Silence in one direction is no reason to end while something is sent
// in the other one; `last` is when anything was.
func copyUntilEnd(to, from *net.TCPConn, last *atomic.Int64, idle time.Duration) error {
	buffer := make([]byte, buffered)
	for {
		if err := from.SetReadDeadline(time.Unix(0, last.Load()).Add(idle)); err != nil {
			return err
		}
		count, err := from.Read(buffer)
		if count > 0 {
			last.Store(time.Now().UnixNano())
			if err := to.SetWriteDeadline(time.Now().Add(idle)); err != nil {
				return err
			}
			if _, err := to.Write(buffer[:count]); err != nil {
				return err
			}
			last.Store(time.Now().UnixNano())
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			if time.Since(time.Unix(0, last.Load())) >= idle {
				return errIdle
			}
		case err != nil:
			return err
		}
	}
}

// reset ends a connection so that its other end sees that it failed.
func reset(connection *net.TCPConn) {
	_ = connection.SetLinger(0)
	_ = connection.Close()
}
