package kernel

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"clawker-fw/internal/boot"
	"clawker-fw/internal/sockets"
)

// The packet filter consists of our tables (limits.go) and of rules with which the engine leads what is sent to its embedded
// resolver to the two random ports at which it listens in this namespace. Depending on its firewall backend, these are
// in nftables (nftables.go) or in the older iptables (iptables_legacy.go).
//
// When `fwctl serve` has installed our tables, only the engine has changed the filter before. So it is read then, and compared
// with that later. The kernel keeps the digests of all parts in a set of our table: they end with the namespace, and
// only a process that can change the filter can change them.

// installedSet is the set with the digests. The name of each part is its comment.
const installedSet = "installed"

const digestSize = 16

// longestComment is how much of a part's name is kept. The names of our own tables and of the engine's are shorter.
const longestComment = 120

type filterPart struct {
	name    string
	content []byte
}

func (p filterPart) digest() [digestSize]byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s", p.name, p.content))
	return [digestSize]byte(sum[:])
}

// readFilter returns all parts of the packet filter, without the ports of the engine's resolver: an engine that is restarted
// beneath its containers listens at others.
func readFilter(resolver *netip.Addr) ([]filterPart, error) {
	found, err := nftParts()
	if err != nil {
		return nil, err
	}
	older, err := legacyParts()
	if err != nil || resolver == nil {
		return append(found, older...), err
	}
	found = append(found, older...)
	for _, transport := range []string{"tcp", "udp"} {
		places, err := sockets.Listening(sockets.Here, transport)
		if err != nil {
			return nil, err
		}
		for _, place := range places {
			if place.Addr() == *resolver {
				leaveOut(found, place.Port())
			}
		}
	}
	return found, nil
}

// leaveOut replaces a port, in both of the orders of octets in which rules have one.
func leaveOut(parts []filterPart, port uint16) {
	for at := range parts {
		for _, octets := range [][]byte{binary.BigEndian.AppendUint16(nil, port), binary.NativeEndian.AppendUint16(nil, port)} {
			parts[at].content = bytes.ReplaceAll(parts[at].content, octets, []byte("PORT"))
		}
	}
}

func rememberFilter(resolver *netip.Addr) error {
	parts, err := readFilter(resolver)
	if err != nil {
		return fmt.Errorf("reading the packet filter: %w", err)
	}
	var elements []nftables.SetElement
	for _, part := range parts {
		digest := part.digest()
		comment := part.name[:min(len(part.name), longestComment)]
		elements = append(elements, nftables.SetElement{Key: digest[:], Comment: comment})
	}
	connection, err := openFilter(nil)
	if err != nil {
		return err
	}
	table := &nftables.Table{Name: limitTable, Family: nftables.TableFamilyIPv4}
	if err := connection.SetAddElements(&nftables.Set{Table: table, Name: installedSet}, elements); err != nil {
		return err
	}
	if err := connection.Flush(); err != nil {
		return fmt.Errorf("remembering the packet filter: %w", first(err))
	}
	return nil
}

func rememberedFilter() (map[[digestSize]byte]string, error) {
	elements, err := elementsOf(installedSet)
	if err != nil {
		return nil, err
	}
	found := map[[digestSize]byte]string{}
	for _, element := range elements {
		key, err := keyOf(element)
		if err != nil || len(key) != digestSize {
			return nil, errors.Join(errors.New("a digest can't be read"), err)
		}
		digest := [digestSize]byte(key)
		found[digest], _ = userdata.GetString(element.value(unix.NFTA_SET_ELEM_USERDATA), userdata.NFTNL_UDATA_SET_ELEM_COMMENT)
	}
	return found, nil
}

// filterDifferences compares the packet filter with what it was when our tables were installed. Where none are, it must be
// empty.
func filterDifferences(sibling boot.Sibling, _ *namespace) ([]string, error) {
	parts, err := readFilter(sibling.Resolver)
	if err != nil {
		return nil, err
	}
	installed := map[[digestSize]byte]string{}
	if sibling.Limits != nil || sibling.Apart != nil {
		installed, err = rememberedFilter()
		if errors.Is(err, unix.ENOENT) {
			return []string{fmt.Sprintf("nftables table ip %s is missing", limitTable)}, nil
		}
		if err != nil {
			return nil, err
		}
	}
	var differences []string
	for _, part := range parts {
		if _, found := installed[part.digest()]; !found {
			differences = append(differences, part.name+" is not ours")
		}
		delete(installed, part.digest())
	}
	for _, name := range installed {
		differences = append(differences, name+" is missing")
	}
	elements, err := elementDifferences()
	return append(differences, elements...), err
}
