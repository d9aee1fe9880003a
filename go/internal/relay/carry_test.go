package relay

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"clawker-fw/internal/must"
	"clawker-fw/internal/nettest"
)

// roomy are limits that no test reaches by accident.
var roomy = bounds{connections: 8, dial: 2 * time.Second, half: 20 * time.Second}

// relayTo runs a relay to an address until the test ends, and returns its address.
func relayTo(t *testing.T, agent netip.AddrPort, limits bounds) string {
	t.Helper()
	listener := must.Open[net.Listener](t)(net.Listen("tcp4", "127.0.0.1:0"))
	go func() { _ = serve(listener, agent, make(chan struct{}, limits.connections), limits) }()
	return listener.Addr().String()
}

func agentThat(t *testing.T, does func(net.Conn)) netip.AddrPort {
	t.Helper()
	return nettest.ServeAt(t, "tcp4", "127.0.0.1:0", does).(*net.TCPAddr).AddrPort()
}

func dial(t *testing.T, place string) *net.TCPConn {
	t.Helper()
	connection := must.Open[net.Conn](t)(net.DialTimeout("tcp4", place, 3*time.Second))
	must.Succeed(t, connection.SetDeadline(time.Now().Add(10*time.Second)))
	return connection.(*net.TCPConn)
}

// A client's data before its half-close reaches the agent, whose answer still arrives: both halves end separately.
func TestEachHalfEndsByItself(t *testing.T) {
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<17) // 2 MiB, more than buffers hold
	agent := agentThat(t, func(connection net.Conn) {
		received, err := io.ReadAll(connection)
		if err == nil {
			_, _ = connection.Write(received)
		}
	})
	client := dial(t, relayTo(t, agent, roomy))
	go func() {
		_, _ = client.Write(sent)
		_ = client.CloseWrite()
	}()
	got, err := io.ReadAll(client)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d octets of %d came back: %v", len(got), len(sent), err)
	}
}

// A reset by the agent, or a closed port, is a reset for the client, not the end of its data.
func TestFailuresAreSeen(t *testing.T) {
	resets := agentThat(t, func(connection net.Conn) { reset(connection.(*net.TCPConn)) })
	nobody := netip.MustParseAddrPort("127.0.0.1:1")
	for name, agent := range map[string]netip.AddrPort{"reset": resets, "nobody listens": nobody} {
		client, err := net.DialTimeout("tcp4", relayTo(t, agent, roomy), 3*time.Second)
		if err == nil {
			_, err = io.ReadAll(client)
			client.Close()
		}
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A client's reset also closes the agent's connection.
func TestTheAgentSeesAReset(t *testing.T) {
	ended := make(chan error, 1)
	agent := agentThat(t, func(connection net.Conn) {
		_, _ = connection.Write([]byte("x"))
		_, err := io.ReadAll(connection)
		ended <- err
	})
	client := dial(t, relayTo(t, agent, roomy))
	must.Get[int](t)(client.Read(make([]byte, 1)))
	reset(client)
	select {
	case err := <-ended:
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Error("the agent still has its connection")
	}
}

// A connection beyond the limit is reset, and existing ones continue. When one has ended, there is room again.
func TestConnectionsAreBounded(t *testing.T) {
	limits := roomy
	limits.connections = 2
	place := relayTo(t, agentThat(t, func(connection net.Conn) { _, _ = io.Copy(connection, connection) }), limits)
	echoes := func(client *net.TCPConn) error {
		if _, err := client.Write([]byte("x")); err != nil {
			return err
		}
		_, err := io.ReadFull(client, make([]byte, 1))
		return err
	}
	first, second := dial(t, place), dial(t, place)
	for _, connection := range []*net.TCPConn{first, second} {
		must.Succeed(t, echoes(connection))
	}
	another := func() error {
		client, err := net.DialTimeout("tcp4", place, 3*time.Second) // it may be reset before this returns
		if err != nil {
			return err
		}
		defer client.Close()
		return errors.Join(client.SetDeadline(time.Now().Add(5*time.Second)), echoes(client.(*net.TCPConn)))
	}
	if err := another(); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a third connection: %v", err)
	}
	if err := echoes(first); err != nil {
		t.Error(err)
	}
	second.Close()
	must.Happen(t, "room again", func() bool { return another() == nil })
}

// An agent that continues for too long after its client's half-close is cut off.
func TestHalvesEnd(t *testing.T) {
	limits := roomy
	limits.half = 400 * time.Millisecond
	client := dial(t, relayTo(t, agentThat(t, func(net.Conn) { time.Sleep(10 * time.Second) }), limits))
	began := time.Now()
	must.Succeed(t, client.CloseWrite())
	if _, err := io.ReadAll(client); !errors.Is(err, syscall.ECONNRESET) || time.Since(began) > 5*time.Second {
		t.Errorf("%v after %s", err, time.Since(began))
	}
}
