package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

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
				content := object.attributes.value(attribute)
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

func withoutCounters(expressions []byte) (found []byte, err error) {
	list, err := readAttributes(expressions)
	for _, each := range list {
		expression, malformed := readAttributes(each.Value)
		if malformed != nil {
			return nil, malformed
		}
		if expression.text(unix.NFTA_EXPR_NAME) != "counter" {
			found = append(fmt.Appendf(found, "%d:", len(each.Value)), each.Value...)
		}
	}
	return found, err
}

// elementDifferences finds elements of our sets with another limit than the rule that adds them: a source address keeps its
// limit for as long as it sends.
func elementDifferences() (differences []string, err error) {
	rules, err := askNftables(unix.NFPROTO_IPV4, unix.NFT_MSG_GETRULE, unix.NFT_MSG_NEWRULE)
	for _, rule := range rules {
		if rule.attributes.text(unix.NFTA_RULE_TABLE) != limitTable {
			continue
		}
		expressions, err := rule.attributes.in(unix.NFTA_RULE_EXPRESSIONS)
		if err != nil {
			return nil, err
		}
		for _, each := range expressions {
			expression, err := readAttributes(each.Value)
			if err != nil {
				return nil, err
			}
			if expression.text(unix.NFTA_EXPR_NAME) != "dynset" {
				continue
			}
			filling, err := expression.in(unix.NFTA_EXPR_DATA)
			if err != nil {
				return nil, err
			}
			limit, err := filling.in(unix.NFTA_DYNSET_EXPR)
			if err != nil {
				return nil, err
			}
			if limit.text(unix.NFTA_EXPR_NAME) == "counter" {
				continue
			}
			set := filling.text(unix.NFTA_DYNSET_SET_NAME)
			elements, err := elementsOf(set)
			if err != nil {
				return nil, fmt.Errorf("set %s: %w", set, err)
			}
			if slices.ContainsFunc(elements, func(element attributes) bool {
				return !bytes.Equal(element.value(unix.NFTA_SET_ELEM_EXPR), filling.value(unix.NFTA_DYNSET_EXPR))
			}) {
				differences = append(differences, fmt.Sprintf("nftables element of set %s is not ours", set))
			}
		}
	}
	return differences, err
}

func elementsOf(set string) (found []attributes, err error) {
	lists, err := askNftables(unix.NFPROTO_IPV4, unix.NFT_MSG_GETSETELEM, unix.NFT_MSG_NEWSETELEM,
		nl.NewRtAttr(unix.NFTA_SET_ELEM_LIST_TABLE, nl.ZeroTerminated(limitTable)),
		nl.NewRtAttr(unix.NFTA_SET_ELEM_LIST_SET, nl.ZeroTerminated(set)))
	for _, list := range lists {
		elements, err := list.attributes.in(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
		if err != nil {
			return nil, err
		}
		for _, each := range elements {
			element, err := readAttributes(each.Value)
			if err != nil {
				return nil, err
			}
			found = append(found, element)
		}
	}
	return found, err
}

func keyOf(element attributes) ([]byte, error) {
	key, err := element.in(unix.NFTA_SET_ELEM_KEY)
	return key.value(unix.NFTA_DATA_VALUE), err
}

// askNftables lists objects of one family or, with NFPROTO_UNSPEC, of all: those with the given attributes. A kernel without
// nftables has none.
func askNftables(family byte, question, answer int, of ...*nl.RtAttr) (objects []nftObject, err error) {
	request := nl.NewNetlinkRequest(nftSubsystem|question, unix.NLM_F_DUMP)
	request.AddData(&nl.Nfgenmsg{NfgenFamily: family, Version: unix.NFNETLINK_V0})
	for _, attribute := range of {
		request.AddData(attribute)
	}
	messages, err := request.Execute(unix.NETLINK_NETFILTER, uint16(nftSubsystem|answer))
	if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EINVAL) {
		return nil, nil
	}
	for _, message := range messages {
		said, err := readMessage(message)
		if err != nil {
			return nil, err
		}
		objects = append(objects, nftObject{message[0], said})
	}
	return objects, err
}

// attributes are netlink attributes, which can be nested. What can't be read is an error, and never missing.
type attributes []syscall.NetlinkRouteAttr

func readAttributes(data []byte) (attributes, error) {
	found, err := nl.ParseRouteAttr(data)
	if err != nil {
		return nil, fmt.Errorf("the kernel's attributes can't be read: %w", err)
	}
	return found, nil
}

// readMessage reads the attributes of a message of netfilter's, which come after its header.
func readMessage(message []byte) (attributes, error) {
	if len(message) < nl.SizeofNfgenmsg {
		return nil, errors.New("the kernel's answer is too short")
	}
	return readAttributes(message[nl.SizeofNfgenmsg:])
}

func (a attributes) value(number int) []byte {
	for _, each := range a {
		if each.Attr.Type&nl.NLA_TYPE_MASK == uint16(number) {
			return each.Value
		}
	}
	return nil
}

func (a attributes) in(number int) (attributes, error) { return readAttributes(a.value(number)) }

func (a attributes) text(number int) string { return unix.ByteSliceToString(a.value(number)) }
