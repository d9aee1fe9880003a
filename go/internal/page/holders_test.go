package page

import (
	"net"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"clawker-fw/internal/must"
	"clawker-fw/internal/nettest"
)

// The kernel knows the holder of an address, and since when it is another one. It knows no holders in other
// networks.
func TestHoldersAreThoseOfTheKernel(t *testing.T) {
	nettest.InNetwork(t)
	link, at := nettest.Link(t, "agents"), time.Now()
	holders := NewHolders(nettest.AgentNet)
	holders.now = func() time.Time { return at }
	if got, err := holders.hardwareOf(nettest.Agent); err == nil {
		t.Errorf("nobody has %s", got)
	}
	for number, hardware := range []string{first, first, second, first} {
		parsed := must.Get[net.HardwareAddr](t)(net.ParseMAC(hardware))
		must.Succeed(t, netlink.NeighSet(&netlink.Neigh{
			LinkIndex: link.Attrs().Index, State: netlink.NUD_REACHABLE, IP: nettest.Agent.AsSlice(), HardwareAddr: parsed,
		}))
		at = at.Add(time.Minute)
		if got, err := holders.hardwareOf(nettest.Agent); err != nil || got != hardware {
			t.Errorf("%s, %v", got, err)
		}
		got, known := holders.of(nettest.Agent)
		if !known || got.hardware != hardware || got.since.IsZero() != (number < 2) || number >= 2 && !got.since.Equal(at) {
			t.Errorf("%d: %+v, %t", number, got, known)
		}
	}
	if _, known := holders.of(nettest.Gateway); known {
		t.Error("who is no agent is known")
	}
}
