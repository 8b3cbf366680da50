"""What sellers counted for texts, kept per offer for all processes to estimate by.

Each process learns a little of what it settles and says so in its events; here the newest of it is
kept, one bounded row an offer (`billing.samples`), so that nothing is lost with a process. Who
reads asks for what has changed since.
"""

from collections import defaultdict
from collections.abc import Iterable

from billing.books.event_reader import Attempt
from billing.samples import Sample, Samples, packed, unpacked
from providers.models import CountedTexts, Offer


def take_up(found: Iterable[Attempt]) -> None:
    """Keep what these attempts taught; the caller takes up each of them once, in their order, in
    a transaction that no other shares."""
    taught: dict[int, list[Sample]] = defaultdict(list)
    newest = 0
    for event in found:
        if event.detail.taught:
            taught[event.offer].extend(event.detail.taught)
            newest = event.id
    if not taught:
        return
    known = dict(CountedTexts.objects.filter(offer__in=taught).values_list("offer_id", "samples"))
    CountedTexts.objects.bulk_create(
        [
            CountedTexts(
                offer_id=offer,
                samples=packed(
                    list(Samples([*unpacked(bytes(known.get(offer, b""))), *taught[offer]]))
                ),
                event_id=newest,
            )
            for offer in Offer.objects.filter(pk__in=taught).values_list("pk", flat=True)
        ],
        update_conflicts=True,
        unique_fields=["offer"],
        update_fields=["samples", "event_id"],
    )


def changed(since: int) -> tuple[dict[tuple[str, str], bytes], int]:
    """By model and sku what was taken up behind that event, packed; and up to which event."""
    rows = CountedTexts.objects.filter(event_id__gt=since)
    found = {
        (row.offer.model.slug, row.offer.sku): (bytes(row.samples), row.event_id)
        for row in rows.select_related("offer__model")
    }
    newest = max((event_id for _, event_id in found.values()), default=since)
    return {key: samples for key, (samples, _) in found.items()}, newest
