package kernel

import (
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
					if content, err = withoutCounters(content); err != nil {
						return nil, fmt.Errorf("%s: %w", part.name, err)
					}
				}
				part.content = append(fmt.Appendf(part.content, "%d:%d:", attribute, len(content)), content...)
			}
			found = append(found, part)
		}
	}
	return found, nil
}

// withoutCounters returns the expressions of a rule without those that only count.
func withoutCounters(expressions []byte) ([]byte, error) {
	list, err := nl.ParseRouteAttr(expressions)
	if err != nil {
		return nil, err
	}
	var found []byte
	for _, each := range list {
		expression, err := readAttributes(each.Value)
		if err != nil {
			return nil, err
		}
		if expression.text(unix.NFTA_EXPR_NAME) != "counter" {
			found = append(fmt.Appendf(found, "%d:", len(each.Value)), each.Value...)
		}
	}
	return found, nil
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
		set, limit, err := filledSet(rule.attributes[unix.NFTA_RULE_EXPRESSIONS])
		if err != nil {
			return nil, err
		}
		if set == "" || limit == "counter" {
			continue
		}
		elements, err := elementsOf(set)
		if err != nil {
			return nil, fmt.Errorf("set %s: %w", set, err)
		}
		if slices.ContainsFunc(elements, func(e setElement) bool { return string(e.attributes[unix.NFTA_SET_ELEM_EXPR]) != limit }) {
			differences = append(differences, fmt.Sprintf("nftables element of set %s is not ours", set))
		}
	}
	return differences, nil
}

// filledSet returns the set to which a rule adds source addresses, if it does, and the expression that it adds with them.
func filledSet(expressions []byte) (set, limit string, err error) {
	list, err := nl.ParseRouteAttr(expressions)
	if err != nil {
		return "", "", err
	}
	for _, each := range list {
		expression, err := readAttributes(each.Value)
		if err != nil {
			return "", "", err
		}
		if expression.text(unix.NFTA_EXPR_NAME) != "dynset" {
			continue
		}
		data, err := readAttributes(expression[unix.NFTA_EXPR_DATA])
		if err != nil {
			return "", "", err
		}
		inner, err := readAttributes(data[unix.NFTA_DYNSET_EXPR])
		if err != nil {
			return "", "", err
		}
		limit := string(data[unix.NFTA_DYNSET_EXPR])
		if name := inner.text(unix.NFTA_EXPR_NAME); name == "counter" {
			limit = name
		}
		return data.text(unix.NFTA_DYNSET_SET_NAME), limit, nil
	}
	return "", "", nil
}

// setElement is an element of a set: its key, and everything that the kernel says of it.
type setElement struct {
	key        []byte
	attributes attributes
}

func elementsOf(set string) ([]setElement, error) {
	lists, err := askNftables(unix.NFPROTO_IPV4, unix.NFT_MSG_GETSETELEM, unix.NFT_MSG_NEWSETELEM,
		nl.NewRtAttr(unix.NFTA_SET_ELEM_LIST_TABLE, nl.ZeroTerminated(limitTable)),
		nl.NewRtAttr(unix.NFTA_SET_ELEM_LIST_SET, nl.ZeroTerminated(set)))
	if err != nil {
		return nil, err
	}
	var found []setElement
	for _, list := range lists {
		elements, err := nl.ParseRouteAttr(list.attributes[unix.NFTA_SET_ELEM_LIST_ELEMENTS])
		if err != nil {
			return nil, err
		}
		for _, each := range elements {
			element, err := readAttributes(each.Value)
			if err != nil {
				return nil, err
			}
			key, err := readAttributes(element[unix.NFTA_SET_ELEM_KEY])
			if err != nil {
				return nil, err
			}
			found = append(found, setElement{key[unix.NFTA_DATA_VALUE], element})
		}
	}
	return found, nil
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
		read, err := readAttributes(message[nl.SizeofNfgenmsg:])
		if err != nil {
			return nil, err
		}
		objects = append(objects, nftObject{message[0], read})
	}
	return objects, nil
}

// attributeNumber is the part of an attribute's type that is its number (netlink(7)).
const attributeNumber = 0x3fff

// attributes are netlink attributes by number. They can be nested.
type attributes map[int][]byte

func readAttributes(data []byte) (attributes, error) {
	list, err := nl.ParseRouteAttr(data)
	if err != nil {
		return nil, err
	}
	found := attributes{}
	for _, each := range list {
		found[int(each.Attr.Type&attributeNumber)] = each.Value
	}
	return found, nil
}

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
