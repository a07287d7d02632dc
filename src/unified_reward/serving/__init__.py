"""The judge as a service: HTTP in front of one judge, whose questions are batched across clients.

app       the routes              schema    what is asked and answered        media     data URLs -> pixels
batcher   a bounded queue and the one thread that asks the model              metrics   numbers for Prometheus
work      a batch of questions -> verdicts                                    server    start, and end without a loss
"""
