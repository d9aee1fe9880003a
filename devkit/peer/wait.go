// The verb wait: an agent that does nothing, to run the others in.
package main

import (
	"context"
	"flag"
)

func declareWait(*flag.FlagSet) action {
	return func(ctx context.Context, positional []string, out *printer) (bool, error) {
		if err := noArguments(positional); err != nil {
			return false, err
		}
		out.print(map[string]string{"event": "ready"})
		<-ctx.Done()
		return true, nil
	}
}
