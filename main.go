// Command kferry copies Kafka topics from cluster to cluster, exactly once. See README.md.
package main

import "github.com/kferry/kferry/shared/cli"

func main() { cli.Main() }
