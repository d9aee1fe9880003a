// The verbs move and remove: what nobody can do from outside, renaming and deleting a file in a volume.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
)

func declareMove(*flag.FlagSet) action {
	return func(_ context.Context, positional []string, _ *printer) (bool, error) {
		if len(positional) != 2 {
			return false, usageError(fmt.Sprintf("expected two paths, got %d arguments", len(positional)))
		}
		return true, os.Rename(positional[0], positional[1])
	}
}

func declareRemove(*flag.FlagSet) action {
	return func(_ context.Context, positional []string, _ *printer) (bool, error) {
		path, err := oneArgument(positional, "path")
		if err != nil {
			return false, err
		}
		return true, os.Remove(path)
	}
}
