// The verb ping: an ICMP echo, by the kind of socket that needs no capability.
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"time"
)

const icmpEcho = 8

func declarePing(flags *flag.FlagSet) action {
	timeout := flags.Duration("timeout", time.Second, "how long to wait for the answer")
	return func(ctx context.Context, positional []string, out *printer) (bool, error) {
		text, err := oneArgument(positional, "ADDRESS")
		if err != nil {
			return false, err
		}
		address, err := netip.ParseAddr(text)
		if err != nil || !address.Is4() {
			return false, usageError(fmt.Sprintf("%q is no IPv4 address", text))
		}
		begin := time.Now()
		err = ping(address, *timeout)
		result := probeResult{OK: err == nil, Milliseconds: milliseconds(time.Since(begin))}
		if err != nil {
			kind := kindOf(inStage(ctx, stageConnect, err))
			result.Error = &kind
		}
		out.print(result)
		return result.OK, nil
	}
}

// ping sends an echo and waits for an answer. The kernel gives each socket the answers to its own echoes alone.
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
