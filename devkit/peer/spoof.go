// The verb spoof: claim somebody else's address, as a container that may send raw packets can.
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

const (
	arpEtherType = 0x0806
	arpRequest   = 1
	arpReply     = 2
	arpLength    = 42 // Ethernet header and an ARP packet for IPv4
	readTimeout  = 100 * time.Millisecond
)

type spoofEvent struct {
	Event    string `json:"event"` // ready, answered
	Address  string `json:"address"`
	Hardware string `json:"hardware"`
}

func declareSpoof(flags *flag.FlagSet) action {
	tell := flags.String("tell", "", "only tell this `HARDWARE` address, once and unasked")
	return func(ctx context.Context, positional []string, out *printer) (bool, error) {
		if len(positional) != 2 {
			return false, usageError(fmt.Sprintf("expected an address and a hardware address, got %d arguments", len(positional)))
		}
		address, err := netip.ParseAddr(positional[0])
		if err != nil || !address.Is4() {
			return false, usageError(fmt.Sprintf("%q is no IPv4 address", positional[0]))
		}
		hardware, err := net.ParseMAC(positional[1])
		if err != nil || len(hardware) != 6 {
			return false, usageError(fmt.Sprintf("%q is no hardware address", positional[1]))
		}
		if *tell == "" {
			return true, spoof(ctx, address, hardware, out)
		}
		victim, err := net.ParseMAC(*tell)
		if err != nil {
			return false, usageError(err.Error())
		}
		return true, sendFrame(victim, arpEtherType, arpClaim(address, hardware, victim))
	}
}

// spoof answers every ARP probe for the address on eth0 with the hardware address, whoever's that is. Only whoever
// looks for others at its own address sends probes: nobody else's traffic is led astray.
func spoof(ctx context.Context, address netip.Addr, hardware net.HardwareAddr, out *printer) error {
	link, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	protocol := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, arpEtherType))
	socket, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, int(protocol))
	if err != nil {
		return fmt.Errorf("raw packets: %w", err)
	}
	defer syscall.Close(socket)
	here := &syscall.SockaddrLinklayer{Protocol: protocol, Ifindex: link.Index}
	if err := syscall.Bind(socket, here); err != nil {
		return err
	}
	timeout := syscall.NsecToTimeval(readTimeout.Nanoseconds())
	if err := syscall.SetsockoptTimeval(socket, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &timeout); err != nil {
		return err
	}
	out.print(spoofEvent{"ready", address.String(), hardware.String()})
	frame := make([]byte, 1514)
	for ctx.Err() == nil {
		size, err := syscall.Read(socket, frame)
		if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		answer := arpAnswer(frame[:size], address, hardware, link.HardwareAddr)
		if answer == nil {
			continue
		}
		if err := syscall.Sendto(socket, answer, 0, here); err != nil {
			return err
		}
		out.print(spoofEvent{"answered", address.String(), hardware.String()})
	}
	return nil
}

// arpAnswer returns the frame that answers a probe for the address (RFC 5227: a request from nobody yet), or nil when
// it is none. It is sent to whoever asked, from our own hardware address: a bridge learns nothing wrong by it.
func arpAnswer(frame []byte, address netip.Addr, hardware, own net.HardwareAddr) []byte {
	if len(frame) < arpLength || binary.BigEndian.Uint16(frame[12:]) != arpEtherType ||
		binary.BigEndian.Uint16(frame[20:]) != arpRequest {
		return nil
	}
	sender, _ := netip.AddrFromSlice(frame[28:32])
	asked, _ := netip.AddrFromSlice(frame[38:42])
	if asked != address || !sender.IsUnspecified() {
		return nil
	}
	answer := append([]byte(nil), frame[:arpLength]...)
	copy(answer[0:6], frame[6:12])
	copy(answer[6:12], own)
	binary.BigEndian.PutUint16(answer[20:], arpReply)
	copy(answer[22:28], hardware)
	copy(answer[28:32], address.AsSlice())
	copy(answer[32:42], frame[22:32])
	return answer
}

// arpClaim is an ARP packet that tells somebody who has the address, although nobody has asked.
func arpClaim(address netip.Addr, hardware, victim net.HardwareAddr) []byte {
	packet := []byte{0, 1, 8, 0, 6, 4, 0, arpReply}
	packet = append(append(packet, hardware...), address.AsSlice()...)
	return append(append(packet, victim...), address.AsSlice()...)
}
