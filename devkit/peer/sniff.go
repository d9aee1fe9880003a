// The verb sniff: every packet that passes a bridge, as whoever administers the engine's machine sees it.
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"unsafe"
)

// largestPacket is more than any interface passes on at once, however many segments it has joined.
const largestPacket = 128 << 10

// anyEtherType is ETH_P_ALL, and packetStatistics PACKET_STATISTICS with its socket level SOL_PACKET (linux/if_packet.h).
const (
	anyEtherType     = 0x0003
	packetLevel      = 263
	packetStatistics = 6
)

// sniffed is a packet from its link layer on, at a port of a bridge.
type sniffed struct {
	Event     string `json:"event"` // packet
	Bridge    string `json:"bridge"`
	Interface int    `json:"interface"` // the number of the port
	Data      []byte `json:"data"`      // base64
}

// sniffSummary is printed at the end. Whoever looks for something in what was dropped does not find it.
type sniffSummary struct {
	Event   string `json:"event"` // summary
	Packets uint32 `json:"packets"`
	Dropped uint32 `json:"dropped"`
}

func declareSniff(*flag.FlagSet) action {
	return func(ctx context.Context, positional []string, out *printer) (bool, error) {
		if len(positional) == 0 {
			return false, usageError("expected the names of bridges")
		}
		wanted := map[string]bool{}
		for _, bridge := range positional {
			if _, err := net.InterfaceByName(bridge); err != nil {
				return false, fmt.Errorf("%s: %w", bridge, err)
			}
			wanted[bridge] = true
		}
		return true, sniff(ctx, wanted, out)
	}
}

func sniff(ctx context.Context, wanted map[string]bool, out *printer) error {
	protocol := int(binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, anyEtherType)))
	socket, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, protocol)
	if err != nil {
		return fmt.Errorf("raw packets: %w", err)
	}
	defer syscall.Close(socket)
	timeout := syscall.NsecToTimeval(readTimeout.Nanoseconds())
	if err := syscall.SetsockoptTimeval(socket, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &timeout); err != nil {
		return err
	}
	out.print(map[string]string{"event": "ready"})
	bridges, packet := map[int]string{}, make([]byte, largestPacket)
	for ctx.Err() == nil {
		size, from, err := syscall.Recvfrom(socket, packet, 0)
		if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		link, is := from.(*syscall.SockaddrLinklayer)
		if !is {
			continue
		}
		bridge, known := bridges[link.Ifindex]
		if !known {
			bridge = bridgeOf(link.Ifindex)
			bridges[link.Ifindex] = bridge
		}
		if wanted[bridge] {
			out.print(sniffed{"packet", bridge, link.Ifindex, packet[:size]})
		}
	}
	var counts [2]uint32 // struct tpacket_stats
	length := uint32(unsafe.Sizeof(counts))
	if _, _, number := syscall.Syscall6(syscall.SYS_GETSOCKOPT, uintptr(socket), packetLevel, packetStatistics,
		uintptr(unsafe.Pointer(&counts)), uintptr(unsafe.Pointer(&length)), 0); number != 0 {
		return number
	}
	out.print(sniffSummary{"summary", counts[0], counts[1]})
	return nil
}

// bridgeOf returns the bridge that an interface is a port of, or the interface itself. What passes from port to port is
// never seen on the bridge's own interface.
func bridgeOf(index int) string {
	link, err := net.InterfaceByIndex(index)
	if err != nil {
		return ""
	}
	master, err := os.Readlink(filepath.Join("/sys/class/net", link.Name, "master"))
	if err != nil {
		return link.Name
	}
	return filepath.Base(master)
}
