package kernel

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// The kernel refuses connections to ports without a listener and above an agent's limit; no program sees these. It
// answers with a reset, or with an ICMP message to a datagram. Our table (limits.go) copies these answers to a
// netlink socket. The socket's holder needs no privilege to read from it, and can do nothing else with it.

const (
	// refusalGroup is the group of the copies. Each network namespace has its own groups.
	refusalGroup = 1
	// refusalSize of an answer are copied: its headers, and those of the datagram that it refuses. An IP header
	// has at most 60 bytes with options, and an answer has the datagram's options.
	refusalSize = 2*60 + 2*8
	// refusalsAtOnce fit into one message. Fewer wait for refusalDelay.
	refusalsAtOnce = 32
	refusalDelay   = 10 // hundredths of a second
)

// Numbers of the kernel's interface (linux/netfilter/nfnetlink_log.h).
const (
	logConfigure = unix.NFNL_SUBSYS_ULOG<<8 | 1
	logPacket    = unix.NFNL_SUBSYS_ULOG << 8
	logPayload   = 9
	logNumber    = 12

	logCommand, logMode, logTimeout, logThreshold, logFlags = 1, 2, 4, 5, 6

	logBind, logCopyPacket, logNumbered = 1, 2, 1
)

// ListenForRefusals opens the socket for copies of the kernel's refusals. It needs CAP_NET_ADMIN.
func ListenForRefusals() (*os.File, error) {
	socket, err := nl.Subscribe(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	defer socket.Close()
	if err := bindToRefusals(socket); err != nil {
		return nil, fmt.Errorf("reading the kernel's refusals needs its nfnetlink_log (CONFIG_NETFILTER_NETLINK_LOG): %w", err)
	}
	own, err := unix.FcntlInt(uintptr(socket.GetFd()), unix.F_DUPFD_CLOEXEC, 0)
	return os.NewFile(uintptr(own), "refusals"), err
}

func bindToRefusals(socket *nl.NetlinkSocket) error {
	// When the buffer is full, copies are lost. Gaps in their numbers show how many.
	if err := unix.SetsockoptInt(socket.GetFd(), unix.SOL_NETLINK, unix.NETLINK_NO_ENOBUFS, 1); err != nil {
		return err
	}
	request := nl.NewNetlinkRequest(logConfigure, unix.NLM_F_ACK)
	request.AddData(&nl.Nfgenmsg{
		NfgenFamily: unix.AF_INET, Version: unix.NFNETLINK_V0, ResId: nl.Swap16(refusalGroup),
	})
	mode := append(binary.BigEndian.AppendUint32(nil, refusalSize), logCopyPacket, 0)
	request.AddData(nl.NewRtAttr(logCommand, []byte{logBind}))
	request.AddData(nl.NewRtAttr(logMode, mode))
	request.AddData(nl.NewRtAttr(logFlags, binary.BigEndian.AppendUint16(nil, logNumbered)))
	request.AddData(nl.NewRtAttr(logTimeout, binary.BigEndian.AppendUint32(nil, refusalDelay)))
	request.AddData(nl.NewRtAttr(logThreshold, binary.BigEndian.AppendUint32(nil, refusalsAtOnce)))
	request.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_NETFILTER: {Socket: socket}}
	_, err := request.Execute(unix.NETLINK_NETFILTER, 0)
	return err
}

// Refusal is a connection or datagram of an agent that the kernel has refused.
type Refusal struct {
	Protocol byte // TCP or UDP
	Source   netip.AddrPort
	Place    netip.AddrPort
	Number   uint32 // of the copy: the kernel numbers them in order
}

// ReadRefusals parses the refusals in a message from the socket.
func ReadRefusals(content []byte) ([]Refusal, error) {
	messages, err := syscall.ParseNetlinkMessage(content)
	if err != nil {
		return nil, err
	}
	var refusals []Refusal
	for _, message := range messages {
		if message.Header.Type != logPacket {
			continue
		}
		attributes, err := readMessage(message.Data)
		if err != nil {
			return nil, err
		}
		if refused, ok := ReadRefusal(attributes.value(logPayload)); ok {
			if number := attributes.value(logNumber); len(number) == 4 {
				refused.Number = binary.BigEndian.Uint32(number)
			}
			refusals = append(refusals, refused)
		}
	}
	return refusals, nil
}

// ReadRefusal parses one answer of the kernel: a reset, or an ICMP message with the datagram's start (RFC 792).
func ReadRefusal(packet []byte) (Refusal, bool) {
	const icmpHeader = 8
	protocol, from, to, ports := readPacket(packet)
	switch {
	case protocol == unix.IPPROTO_TCP && len(ports) >= 4:
		return Refusal{Protocol: protocol, Source: portAt(to, ports[2:]), Place: portAt(from, ports)}, true
	case protocol == unix.IPPROTO_ICMP && len(ports) >= icmpHeader:
		protocol, from, to, ports = readPacket(ports[icmpHeader:])
		if protocol == unix.IPPROTO_UDP && len(ports) >= 4 {
			return Refusal{Protocol: protocol, Source: portAt(from, ports), Place: portAt(to, ports[2:])}, true
		}
	}
	return Refusal{}, false
}

// readPacket returns the protocol and the addresses of an IPv4 packet, and its payload (RFC 791).
func readPacket(packet []byte) (protocol byte, from, to netip.Addr, rest []byte) {
	const leastHeader = 20
	if len(packet) < leastHeader {
		return 0, from, to, nil
	}
	header := int(packet[0]&0x0f) * 4
	if header < leastHeader || header > len(packet) {
		return 0, from, to, nil
	}
	return packet[9], netip.AddrFrom4([4]byte(packet[12:16])), netip.AddrFrom4([4]byte(packet[16:20])), packet[header:]
}

func portAt(address netip.Addr, port []byte) netip.AddrPort {
	return netip.AddrPortFrom(address, binary.BigEndian.Uint16(port))
}

// SocketLists is the folder with the kernel's lists of the sockets in this process's network (proc(5), net/tcp and net/udp).
const SocketLists = "/proc/thread-self/net"

// The states of listening sockets (linux/tcp_states.h). One for datagrams has no connection.
var waitingStates = map[string]string{"tcp": "0A", "udp": "07"}

// Listening returns the addresses of listening sockets of a transport, `tcp` or `udp`. A socket for all
// interfaces, of either family, is at 0.0.0.0. Other IPv6 addresses are left out.
func Listening(folder, transport string) ([]netip.AddrPort, error) {
	var listening []netip.AddrPort
	for _, family := range []string{"", "6"} {
		file, err := os.Open(filepath.Join(folder, transport+family))
		if errors.Is(err, fs.ErrNotExist) && family == "6" {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, err
		}
		places, err := readSockets(file, waitingStates[transport])
		file.Close()
		if err != nil {
			return nil, err
		}
		listening = append(listening, places...)
	}
	return listening, nil
}

// readSockets returns the addresses of sockets in a state. Listening TCP sockets come first in the list.
func readSockets(list io.Reader, inState string) ([]netip.AddrPort, error) {
	const place, state = 1, 3
	var places []netip.AddrPort
	lines := bufio.NewScanner(list)
	lines.Scan() // the names of the columns
	for lines.Scan() {
		columns := strings.Fields(lines.Text())
		if len(columns) <= state || columns[state] != inState {
			if inState == waitingStates["tcp"] {
				break
			}
			continue
		}
		if at, ok := readPlace(columns[place]); ok {
			places = append(places, at)
		}
	}
	return places, lines.Err()
}

func readPlace(text string) (netip.AddrPort, bool) {
	address, port, _ := strings.Cut(text, ":")
	number, err := strconv.ParseUint(port, 16, 16)
	ip, malformed := hex.DecodeString(address)
	if err != nil || malformed != nil || len(ip) < 4 {
		return netip.AddrPort{}, false
	}
	if len(ip) > 4 && slices.ContainsFunc(ip, func(part byte) bool { return part != 0 }) {
		return netip.AddrPort{}, false
	}
	var host [4]byte
	binary.NativeEndian.PutUint32(host[:], binary.BigEndian.Uint32(ip))
	return netip.AddrPortFrom(netip.AddrFrom4(host), uint16(number)), true
}
