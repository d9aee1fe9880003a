// The verbs forge and spoof: raw packets, as a container can send them that may.
package main

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	hopLimit    = 64
	forgedPort  = 40000
	arpRequest  = 1
	arpReply    = 2
	arpLength   = 42 // Ethernet header and an ARP packet for IPv4
	readTimeout = 100 * time.Millisecond
)

func sendFrame(hardware net.HardwareAddr, kind uint16, packet []byte) error {
	link, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	return sendOn(socket, link, hardware, kind, packet)
}

func sendOn(socket int, link *net.Interface, hardware net.HardwareAddr, kind uint16, packet []byte) error {
	frame := append(append([]byte(nil), hardware...), link.HardwareAddr...)
	frame = append(binary.BigEndian.AppendUint16(frame, kind), packet...)
	return unix.Sendto(socket, frame, 0, &unix.SockaddrLinklayer{Ifindex: link.Index})
}

type forgeResult struct {
	OK    bool     `json:"ok"`
	Error *failure `json:"error"`
}

func declareForge(flags *flag.FlagSet) action {
	via := flags.String("via", "", "the `HARDWARE` address to send it to")
	from := flags.String("from", "", "the `ADDRESS` that it says it comes from, of the same family")
	content := flags.String("hex", "", "the content, in `HEXADECIMAL`")
	return func(_ context.Context, arguments []string, out *printer) (bool, error) {
		to, noPlace := netip.ParseAddrPort(arguments[0])
		source, noSource := netip.ParseAddr(*from)
		hardware, noHardware := net.ParseMAC(*via)
		payload, noPayload := hex.DecodeString(*content)
		if err := errors.Join(noPlace, noSource, noHardware, noPayload); err != nil {
			return false, err
		}
		kind := uint16(unix.ETH_P_IPV6)
		if to.Addr().Is4() {
			kind = unix.ETH_P_IP
		}
		err := sendFrame(hardware, kind, udpPacket(source, to, payload))
		out.print(forgeResult{err == nil, failureOf(err)})
		return err == nil, nil
	}
}

// udpPacket is an IP packet with a UDP datagram (RFC 768, RFC 791, RFC 8200).
func udpPacket(from netip.Addr, to netip.AddrPort, payload []byte) []byte {
	length := uint16(8 + len(payload))
	addresses := append(from.AsSlice(), to.Addr().AsSlice()...)
	datagram := binary.BigEndian.AppendUint16(nil, forgedPort)
	datagram = binary.BigEndian.AppendUint16(datagram, to.Port())
	datagram = binary.BigEndian.AppendUint16(datagram, length)
	datagram = append(append(datagram, 0, 0), payload...)
	pseudo := binary.BigEndian.AppendUint16(append([]byte(nil), addresses...), length)
	pseudo = append(append(pseudo, 0, syscall.IPPROTO_UDP), datagram...)
	binary.BigEndian.PutUint16(datagram[6:], ^checksum(pseudo))

	if to.Addr().Is6() {
		header := binary.BigEndian.AppendUint16([]byte{0x60, 0, 0, 0}, length)
		header = append(header, syscall.IPPROTO_UDP, hopLimit)
		return append(append(header, addresses...), datagram...)
	}
	header := binary.BigEndian.AppendUint16([]byte{0x45, 0}, 20+length)
	header = append(header, 0, 0, 0, 0, hopLimit, syscall.IPPROTO_UDP, 0, 0)
	header = append(header, addresses...)
	binary.BigEndian.PutUint16(header[10:], ^checksum(header))
	return append(header, datagram...)
}

// checksum is the ones' complement sum of RFC 1071.
func checksum(data []byte) uint16 {
	sum := uint32(0)
	for i, octet := range data {
		sum += uint32(octet) << (8 * uint(1-i%2))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

func declareSpoof(flags *flag.FlagSet) action {
	tell := flags.String("tell", "", "only tell this `HARDWARE` address, once and unasked")
	return func(ctx context.Context, arguments []string, out *printer) (bool, error) {
		address, noAddress := netip.ParseAddr(arguments[0])
		hardware, noHardware := net.ParseMAC(arguments[1])
		if err := errors.Join(noAddress, noHardware); err != nil {
			return false, err
		}
		if *tell == "" {
			return true, spoof(ctx, address, hardware, out)
		}
		victim, err := net.ParseMAC(*tell)
		if err != nil {
			return false, err
		}
		return true, sendFrame(victim, unix.ETH_P_ARP, arpClaim(address, hardware, victim))
	}
}

// spoof answers every ARP probe for the address on eth0 with the hardware address, whoever's that is. Only whoever
// looks for others at its own address sends probes: nobody else's traffic is led astray.
func spoof(ctx context.Context, address netip.Addr, hardware net.HardwareAddr, out *printer) error {
	link, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	protocol := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ARP))
	socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(protocol))
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	timeout := unix.NsecToTimeval(readTimeout.Nanoseconds())
	err = errors.Join(
		unix.Bind(socket, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: link.Index}),
		unix.SetsockoptTimeval(socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout),
	)
	if err != nil {
		return err
	}
	out.print(event{"ready"})
	for frame := make([]byte, link.MTU+arpLength); ctx.Err() == nil; {
		size, _, err := unix.Recvfrom(socket, frame, 0)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		if asker := arpAsker(frame[:size], address); asker != nil {
			err := sendOn(socket, link, asker, unix.ETH_P_ARP, arpClaim(address, hardware, asker)) // who asks waits for milliseconds
			out.print(event{"answered"})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// arpAsker returns who sends a frame that is a probe for the address (RFC 5227: a request from nobody yet), or nil when
// it is none. The answer comes from our own hardware address: a bridge learns nothing wrong by it.
func arpAsker(frame []byte, address netip.Addr) net.HardwareAddr {
	if len(frame) < arpLength || binary.BigEndian.Uint16(frame[20:]) != arpRequest {
		return nil
	}
	sender, _ := netip.AddrFromSlice(frame[28:32])
	asked, _ := netip.AddrFromSlice(frame[38:42])
	if asked != address || !sender.IsUnspecified() {
		return nil
	}
	return append(net.HardwareAddr(nil), frame[6:12]...)
}

func arpClaim(address netip.Addr, hardware, told net.HardwareAddr) []byte {
	packet := []byte{0, 1, 8, 0, 6, 4, 0, arpReply}
	packet = append(append(packet, hardware...), address.AsSlice()...)
	return append(append(packet, told...), address.AsSlice()...)
}
