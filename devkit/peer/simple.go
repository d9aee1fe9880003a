// Verbs of a few lines: probe-tcp, ping, move, remove, wait.
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
)

type attemptResult struct {
	OK           bool     `json:"ok"`
	Milliseconds float64  `json:"ms"`
	Error        *failure `json:"error"`
}

// attempt prints whether something can be done at all.
func attempt(out *printer, try func() error) (bool, error) {
	begin := time.Now()
	err := try()
	out.print(attemptResult{err == nil, milliseconds(time.Since(begin)), failureOf(err)})
	return err == nil, nil
}

func declareProbe(flags *flag.FlagSet) action {
	timeout := flags.Duration("timeout", 2*time.Second, "limit for lookup and connection")
	return func(ctx context.Context, arguments []string, out *printer) (bool, error) {
		host, port, err := net.SplitHostPort(arguments[0])
		if err != nil {
			return false, err
		}
		ctx, cancel := context.WithTimeout(ctx, *timeout)
		defer cancel()
		return attempt(out, func() error {
			conn, _, err := open(ctx, destination{host: host, port: port})
			if err == nil {
				conn.abandon() // a peer that never speaks, or speaks first, isn't worth waiting for
			}
			return err
		})
	}
}

const icmpEcho = 8

func declarePing(flags *flag.FlagSet) action {
	timeout := flags.Duration("timeout", time.Second, "how long to wait for the answer")
	return func(_ context.Context, arguments []string, out *printer) (bool, error) {
		address, err := netip.ParseAddr(arguments[0])
		if err != nil {
			return false, err
		}
		return attempt(out, func() error { return ping(address, *timeout) })
	}
}

// ping sends an echo and waits for an answer, by the kind of socket that needs no capability. The kernel gives each
// socket the answers to its own echoes alone.
func ping(address netip.Addr, timeout time.Duration) error {
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, syscall.IPPROTO_ICMP)
	if err != nil {
		return err
	}
	defer syscall.Close(socket)
	limit := syscall.NsecToTimeval(timeout.Nanoseconds())
	if err := syscall.SetsockoptTimeval(socket, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &limit); err != nil {
		return err
	}
	echo := []byte{icmpEcho, 0, 0, 0, 0, 0, 0, 1} // the kernel fills in the identifier and the sum over all
	binary.BigEndian.PutUint16(echo[2:], ^checksum(echo))
	if err := syscall.Sendto(socket, echo, 0, &syscall.SockaddrInet4{Addr: address.As4()}); err != nil {
		return err
	}
	_, _, err = syscall.Recvfrom(socket, make([]byte, 64), 0)
	if errors.Is(err, syscall.EAGAIN) {
		return os.ErrDeadlineExceeded
	}
	return err
}

// declareMove and declareRemove do what nobody can do from outside: rename and delete a file in a volume.
func declareMove(*flag.FlagSet) action {
	return func(_ context.Context, arguments []string, _ *printer) (bool, error) {
		return true, os.Rename(arguments[0], arguments[1])
	}
}

func declareRemove(*flag.FlagSet) action {
	return func(_ context.Context, arguments []string, _ *printer) (bool, error) {
		return true, os.Remove(arguments[0])
	}
}

// declareWait is an agent that does nothing, to run the others in.
func declareWait(*flag.FlagSet) action {
	return func(ctx context.Context, _ []string, out *printer) (bool, error) {
		out.print(event{"ready"})
		<-ctx.Done()
		return true, nil
	}
}
