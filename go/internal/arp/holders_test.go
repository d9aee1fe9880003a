package arp

import (
	"encoding/binary"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"clawker-fw/internal/must"
	"clawker-fw/internal/nettest"
)

// answerARP makes the other end of a link answer the next ARP request for an address.
func answerARP(t *testing.T, name string) {
	t.Helper()
	socket := must.Get[int](t)(unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(networkOrder(unix.ETH_P_ARP))))
	index := nettest.Link(t, name).Attrs().Index
	here := &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ARP), Ifindex: index}
	must.Succeed(t, unix.Bind(socket, here))
	hardware := nettest.Link(t, name).Attrs().HardwareAddr
	go func() {
		defer unix.Close(socket)
		request := make([]byte, 128)
		if _, err := unix.Read(socket, request); err != nil {
			return
		}
		reply := slices.Clone(request[:arpLength])
		binary.BigEndian.PutUint16(reply[arpOperation:], arpReply)
		copy(reply[arpSender:], hardware)
		copy(reply[arpSender+6:], request[arpSender+16:arpSender+20])
		_ = broadcast(socket, index, reply)
	}()
}

// Another host that answers ARP for one of our addresses is reported, with its MAC address.
func TestOthersWhoHaveOurAddress(t *testing.T) {
	nettest.InNetwork(t)
	silence(t, "agents-end", "egress-end")
	want := nettest.OnAgents.String() + " " + nettest.Link(t, "agents-end").Attrs().HardwareAddr.String()
	others := []string{}
	// On a busy machine the answer may be too late for one probe.
	for try := 0; try < 20 && len(others) == 0; try++ {
		answerARP(t, "agents-end")
		asked := must.Get[*Others](t)(AskForOthers())
		others = asked.Answers()
	}

	if !slices.Equal(others, []string{want}) {
		t.Errorf("found %q, expected %q", others, want)
	}
}

// Without another holder nothing is reported, and the probes change no ARP cache.
func TestNobodyElseHasOurAddress(t *testing.T) {
	nettest.InNetwork(t)
	silence(t, "agents-end", "egress-end")
	hear := listenForARP(t, "agents-end")

	asked := must.Get[*Others](t)(AskForOthers())

	if got := asked.Answers(); got == nil || len(got) > 0 {
		t.Errorf("found %#v", got)
	}
	if frame := hear(); !slices.Equal(frame[arpSender+6:arpSender+10], []byte{0, 0, 0, 0}) {
		t.Errorf("the question claims the address: % x", frame)
	}
}
