// Flags that more than one verb has, and kinds of flags that the flag package lacks.
package main

import (
	"flag"
	"strings"
)

// repeated collects the values of a flag that may be given more than once.
type repeated []string

func (r *repeated) String() string { return strings.Join(*r, ", ") }

func (r *repeated) Set(value string) error {
	*r = append(*r, value)
	return nil
}

// ports is a comma-separated list of TCP ports.
type ports []string

func (p *ports) String() string { return strings.Join(*p, ",") }

func (p *ports) Set(text string) error {
	*p = append(*p, strings.Split(text, ",")...)
	return nil
}

// declareServer adds a flag that names a DNS server and returns how to read it as host:port, empty when not given.
func declareServer(flags *flag.FlagSet, name string) func() string {
	value := flags.String(name, "", "ask this DNS server, `ADDRESS[:PORT]`, not the one in resolv.conf")
	return func() string {
		if *value == "" {
			return ""
		}
		return withDefaultPort(*value, "53")
	}
}

// given reports whether a flag stood on the command line, for flags whose empty value means something.
func given(flags *flag.FlagSet, name string) bool {
	found := false
	flags.Visit(func(flag *flag.Flag) { found = found || flag.Name == name })
	return found
}
