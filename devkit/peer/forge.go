// The verb forge: a datagram as a frame, as a container can send it that may send raw packets.
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
)

const (
	ipv4EtherType = 0x0800
	ipv6EtherType = 0x86dd
	hopLimit      = 64
	forgedPort    = 40000
)

// forgeResult says whether the frame was sent. Who hears it says whether that was of use.
type forgeResult struct {
	OK    bool    `json:"ok"`
	Error *string `json:"error"` // forbidden, or what the kernel says
}

func declareForge(flags *flag.FlagSet) action {
	via := flags.String("via", "", "the `HARDWARE` address to send it to")
	from := flags.String("from", "", "the `ADDRESS` that it says it comes from")
	content := flags.String("hex", "", "the content, in `HEXADECIMAL`")
	return func(_ context.Context, positional []string, out *printer) (bool, error) {
		text, err := oneArgument(positional, "ADDRESS:PORT")
		if err != nil {
			return false, err
		}
		to, err := netip.ParseAddrPort(text)
		if err != nil {
			return false, usageError(err.Error())
		}
		source, err := netip.ParseAddr(*from)
		if err != nil || source.Is4() != to.Addr().Is4() {
			return false, usageError("expected --from with an address of the same family")
		}
		hardware, err := net.ParseMAC(*via)
		if err != nil {
			return false, usageError(err.Error())
		}
		payload, err := hex.DecodeString(*content)
		if err != nil {
			return false, usageError(err.Error())
		}
		var result forgeResult
		kind := uint16(ipv6EtherType)
		if to.Addr().Is4() {
			kind = ipv4EtherType
		}
		switch err := sendFrame(hardware, kind, udpPacket(source, to, payload)); {
		case errors.Is(err, syscall.EPERM):
			forbidden := "forbidden"
			result.Error = &forbidden
		case err != nil:
			text := err.Error()
			result.Error = &text
		default:
			result.OK = true
		}
		out.print(result)
		return result.OK, nil
	}
}

// sendFrame sends a packet from eth0 to a hardware address.
func sendFrame(hardware net.HardwareAddr, kind uint16, packet []byte) error {
	link, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	socket, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(socket)
	frame := append(append([]byte(nil), hardware...), link.HardwareAddr...)
	frame = append(binary.BigEndian.AppendUint16(frame, kind), packet...)
	return syscall.Sendto(socket, frame, 0, &syscall.SockaddrLinklayer{Ifindex: link.Index})
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
