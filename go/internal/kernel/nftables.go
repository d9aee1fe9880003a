package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// The kernel shows nftables as objects with netlink attributes (linux/netfilter/nf_tables.h).
const nftSubsystem = unix.NFNL_SUBSYS_NFTABLES << 8

// nftKind is a kind of object: its messages, the attributes that name one, and those that decide about packets.
type nftKind struct {
	name             string
	question, answer int
	names, decide    []int
}

var nftKinds = []nftKind{
	{
		"table", unix.NFT_MSG_GETTABLE, unix.NFT_MSG_NEWTABLE,
		[]int{unix.NFTA_TABLE_NAME}, []int{unix.NFTA_TABLE_FLAGS},
	},
	{
		"chain", unix.NFT_MSG_GETCHAIN, unix.NFT_MSG_NEWCHAIN,
		[]int{unix.NFTA_CHAIN_TABLE, unix.NFTA_CHAIN_NAME},
		[]int{unix.NFTA_CHAIN_TYPE, unix.NFTA_CHAIN_HOOK, unix.NFTA_CHAIN_POLICY},
	},
	{
		"set", unix.NFT_MSG_GETSET, unix.NFT_MSG_NEWSET,
		[]int{unix.NFTA_SET_TABLE, unix.NFTA_SET_NAME},
		[]int{unix.NFTA_SET_FLAGS, unix.NFTA_SET_KEY_LEN, unix.NFTA_SET_DESC, unix.NFTA_SET_TIMEOUT},
	},
	{
		"rule", unix.NFT_MSG_GETRULE, unix.NFT_MSG_NEWRULE,
		[]int{unix.NFTA_RULE_TABLE, unix.NFTA_RULE_CHAIN}, []int{unix.NFTA_RULE_EXPRESSIONS},
	},
}

var nftFamilies = map[byte]string{
	unix.NFPROTO_INET: "inet", unix.NFPROTO_IPV4: "ip", unix.NFPROTO_ARP: "arp", unix.NFPROTO_NETDEV: "netdev",
	unix.NFPROTO_BRIDGE: "bridge", unix.NFPROTO_IPV6: "ip6",
}

type nftObject struct {
	family     byte
	attributes attributes
}

// nftParts lists the objects of all kinds and families. The place of a rule in its chain is part of its name, because the
// order of rules decides. What rules have counted is left out.
func nftParts() ([]filterPart, error) {
	var found []filterPart
	for _, kind := range nftKinds {
		objects, err := askNftables(unix.NFPROTO_UNSPEC, kind.question, kind.answer)
		if err != nil {
			return nil, err
		}
		places := map[string]int{}
		for _, object := range objects {
			words := []string{"nftables", kind.name, nftFamilies[object.family]}
			for _, attribute := range kind.names {
				words = append(words, object.attributes.text(attribute))
			}
			part := filterPart{name: strings.Join(words, " ")}
			if kind.name == "rule" {
				places[part.name]++
				part.name += fmt.Sprintf(" %d", places[part.name])
			}
			for _, attribute := range kind.decide {
				content := object.attributes[attribute]
				if attribute == unix.NFTA_RULE_EXPRESSIONS && kind.name == "rule" {
					content = withoutCounters(content)
				}
				part.content = append(fmt.Appendf(part.content, "%d:%d:", attribute, len(content)), content...)
			}
			found = append(found, part)
		}
	}
	return found, nil
}

// withoutCounters returns the expressions of a rule without those that only count.
func withoutCounters(expressions []byte) []byte {
	var found []byte
	for _, each := range listIn(expressions) {
		if readAttributes(each).text(unix.NFTA_EXPR_NAME) != "counter" {
			found = append(fmt.Appendf(found, "%d:", len(each)), each...)
		}
	}
	return found
}

// elementDifferences finds elements of our sets with another limit than the rule that adds them: a source address keeps its
// limit for as long as it sends.
func elementDifferences() ([]string, error) {
	rules, err := askNftables(unix.NFPROTO_IPV4, unix.NFT_MSG_GETRULE, unix.NFT_MSG_NEWRULE)
	if err != nil {
		return nil, err
	}
	var differences []string
	for _, rule := range rules {
		if rule.attributes.text(unix.NFTA_RULE_TABLE) != limitTable {
			continue
		}
		for _, part := range listIn(rule.attributes[unix.NFTA_RULE_EXPRESSIONS]) {
			expression := readAttributes(part)
			filling := expression.in(unix.NFTA_EXPR_DATA)
			limit := filling.in(unix.NFTA_DYNSET_EXPR)
			if expression.text(unix.NFTA_EXPR_NAME) != "dynset" || limit.text(unix.NFTA_EXPR_NAME) == "counter" {
				continue
			}
			set := filling.text(unix.NFTA_DYNSET_SET_NAME)
			elements, err := elementsOf(set)
			if err != nil {
				return nil, fmt.Errorf("set %s: %w", set, err)
			}
			if slices.ContainsFunc(elements, func(element attributes) bool {
				return !bytes.Equal(element[unix.NFTA_SET_ELEM_EXPR], filling[unix.NFTA_DYNSET_EXPR])
			}) {
				differences = append(differences, fmt.Sprintf("nftables element of set %s is not ours", set))
			}
		}
	}
	return differences, nil
}

// elementsOf returns everything that the kernel says of the elements of a set of ours.
func elementsOf(set string) ([]attributes, error) {
	lists, err := askNftables(unix.NFPROTO_IPV4, unix.NFT_MSG_GETSETELEM, unix.NFT_MSG_NEWSETELEM,
		nl.NewRtAttr(unix.NFTA_SET_ELEM_LIST_TABLE, nl.ZeroTerminated(limitTable)),
		nl.NewRtAttr(unix.NFTA_SET_ELEM_LIST_SET, nl.ZeroTerminated(set)))
	var found []attributes
	for _, list := range lists {
		for _, each := range listIn(list.attributes[unix.NFTA_SET_ELEM_LIST_ELEMENTS]) {
			found = append(found, readAttributes(each))
		}
	}
	return found, err
}

func keyOf(element attributes) []byte {
	return element.in(unix.NFTA_SET_ELEM_KEY)[unix.NFTA_DATA_VALUE]
}

// askNftables lists objects of one family or, with NFPROTO_UNSPEC, of all: those with the given attributes. A kernel without
// nftables has none.
func askNftables(family byte, question, answer int, of ...*nl.RtAttr) ([]nftObject, error) {
	request := nl.NewNetlinkRequest(nftSubsystem|question, unix.NLM_F_DUMP)
	request.AddData(&nl.Nfgenmsg{NfgenFamily: family, Version: unix.NFNETLINK_V0})
	for _, attribute := range of {
		request.AddData(attribute)
	}
	messages, err := request.Execute(unix.NETLINK_NETFILTER, uint16(nftSubsystem|answer))
	if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EINVAL) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var objects []nftObject
	for _, message := range messages {
		if len(message) < nl.SizeofNfgenmsg {
			return nil, errors.New("the kernel's answer is too short")
		}
		objects = append(objects, nftObject{message[0], readAttributes(message[nl.SizeofNfgenmsg:])})
	}
	return objects, nil
}

// attributeNumber is the part of an attribute's type that is its number (netlink(7)).
const attributeNumber = 0x3fff

// attributes are netlink attributes by number. They can be nested.
type attributes map[int][]byte

func readAttributes(data []byte) attributes {
	list, _ := nl.ParseRouteAttr(data) // the kernel's can be read
	found := attributes{}
	for _, each := range list {
		found[int(each.Attr.Type&attributeNumber)] = each.Value
	}
	return found
}

// listIn returns the values of attributes that are all of the same number.
func listIn(data []byte) [][]byte {
	list, _ := nl.ParseRouteAttr(data)
	var found [][]byte
	for _, each := range list {
		found = append(found, each.Value)
	}
	return found
}

// in returns the attributes within one: none without it.
func (a attributes) in(number int) attributes { return readAttributes(a[number]) }

func (a attributes) text(number int) string { return strings.TrimRight(string(a[number]), "\x00") }

// big returns a number of 64 bits, 0 without one.
func (a attributes) big(number int) uint64 {
	if len(a[number]) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(a[number])
}

func (a attributes) number(number int) int {
	if len(a[number]) != 4 {
		return -1
	}
	return int(int32(binary.BigEndian.Uint32(a[number])))
}
