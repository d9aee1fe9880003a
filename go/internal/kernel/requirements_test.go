package kernel

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"clawker-fw/internal/nettest"
)

// A complete kernel lacks nothing.
func TestRequirements(t *testing.T) {
	nettest.InNetwork(t)

	if got := CheckRequirements(); len(got.Lacking) > 0 {
		t.Errorf("got %q", got.Lacking)
	}
}

// A kernel without nf_tables is detected by its first answer, and named, without waiting for a second one.
func TestWithoutNfTables(t *testing.T) {
	limits := nettest.SmallLimits()
	without := nftables.WithTestDial(func(requests []netlink.Message) ([]netlink.Message, error) {
		header := requests[0].Header
		header.Type, header.Flags = netlink.Error, 0
		refusal := binary.NativeEndian.AppendUint32(nil, ^uint32(0)-uint32(unix.EINVAL)+1)
		return []netlink.Message{{Header: header, Data: append(refusal, make([]byte, 16)...)}}, nil
	})

	err := newLimitFilter(limits).installWithSix(without)

	if !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), "needs nf_tables in the kernel") {
		t.Errorf("got %v", err)
	}
}

// The error of a kernel with a part of nf_tables names the missing part once.
func TestWithoutModules(t *testing.T) {
	limits := nettest.SmallLimits()
	refusing := nftables.WithTestDial(func(requests []netlink.Message) ([]netlink.Message, error) {
		if netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETTABLE) == requests[0].Header.Type {
			return []netlink.Message{{Header: netlink.Header{Type: netlink.Done, Flags: netlink.Multi,
				Sequence: requests[0].Header.Sequence, PID: requests[0].Header.PID}, Data: make([]byte, 4)}}, nil
		}
		return nil, unix.EOPNOTSUPP
	})

	err := newLimitFilter(limits).installWithSix(refusing)

	if !errors.Is(err, unix.EOPNOTSUPP) || !strings.Contains(err.Error(), "connlimit") {
		t.Errorf("got %v", err)
	}
	if times := strings.Count(err.Error(), unix.EOPNOTSUPP.Error()); times != 1 {
		t.Errorf("the error is there %d times: %v", times, err)
	}
}
