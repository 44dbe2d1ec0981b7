"""Tools that no request asks for: the shapes of common web APIs, as company beside the tools that are trained.

Made of what a business keeps (invoices, shipments, tenants …) and what is done with it (list, create, archive …):
some four hundred different schemas, all of them plain. They stand in lists as distractors, and alone where
nothing fits; a model that has only seen the tools it is trained on calls one of these as soon as it meets it.
"""

# ruff: noqa: E501

import random
from typing import Any

Tool = dict[str, Any]

_STRING, _INTEGER, _NUMBER, _BOOLEAN = ({"type": kind} for kind in ("string", "integer", "number", "boolean"))
_DATE = {"type": "string", "description": "YYYY-MM-DD"}


def _one_of(*values: str) -> dict[str, Any]:
    return {"type": "string", "enum": list(values)}


# What is kept: (singular, plural, group, fields that it is made of).
THINGS: list[tuple[str, str, str, dict[str, dict[str, Any]]]] = [
    ("warehouse shipment", "warehouse shipments", "logistics", {"carrier": _STRING, "pallets": _INTEGER, "hazardous": _BOOLEAN}),
    ("customs declaration", "customs declarations", "logistics", {"tariff_code": _STRING, "declared_value": _NUMBER, "origin_country": _STRING}),
    ("delivery route", "delivery routes", "logistics", {"depot": _STRING, "stops": {"type": "array", "items": _STRING}, "vehicle": _STRING}),
    ("purchase requisition", "purchase requisitions", "procurement", {"department": _STRING, "cost_center": _STRING, "needed_by": _DATE}),
    ("supplier contract", "supplier contracts", "procurement", {"supplier": _STRING, "term_months": _INTEGER, "auto_renew": _BOOLEAN}),
    ("insurance claim", "insurance claims", "insurance", {"policy_number": _STRING, "damage": _one_of("fire", "flood", "theft", "collision"), "estimate": _NUMBER}),
    ("insurance policy", "insurance policies", "insurance", {"holder": _STRING, "coverage": _NUMBER, "deductible": _NUMBER}),
    ("mortgage application", "mortgage applications", "lending", {"applicant": _STRING, "principal": _NUMBER, "term_years": _INTEGER}),
    ("credit report", "credit reports", "lending", {"national_id": _STRING, "bureau": _one_of("experian", "equifax", "transunion")}),
    ("payroll run", "payroll runs", "hr", {"period": _STRING, "overtime_included": _BOOLEAN}),
    ("job candidate", "job candidates", "hr", {"position": _STRING, "stage": _one_of("screening", "interview", "offer", "hired"), "salary_expectation": _INTEGER}),
    ("leave request", "leave requests", "hr", {"employee": _STRING, "starts": _DATE, "ends": _DATE}),
    ("performance review", "performance reviews", "hr", {"employee": _STRING, "rating": _INTEGER, "reviewer": _STRING}),
    ("sales lead", "sales leads", "crm", {"company_size": _one_of("small", "medium", "large"), "region": _STRING, "score": _INTEGER}),
    ("marketing campaign", "marketing campaigns", "marketing", {"audience": _STRING, "budget": _NUMBER, "channel": _one_of("search", "social", "print")}),
    ("discount tier", "discount tiers", "pricing", {"minimum_units": _INTEGER, "percentage": _NUMBER}),
    ("product recall", "product recalls", "compliance", {"batch": _STRING, "severity": _one_of("minor", "major", "critical")}),
    ("safety inspection", "safety inspections", "compliance", {"site": _STRING, "inspector": _STRING, "passed": _BOOLEAN}),
    ("clinical trial", "clinical trials", "research", {"phase": _INTEGER, "compound": _STRING, "participants": _INTEGER}),
    ("gene sequence", "gene sequences", "research", {"organism": _STRING, "chromosome": _STRING, "length_bp": _INTEGER}),
    ("protein structure", "protein structures", "research", {"uniprot_id": _STRING, "resolution": _NUMBER}),
    ("telescope observation", "telescope observations", "astronomy", {"right_ascension": _NUMBER, "declination": _NUMBER, "exposure_seconds": _INTEGER}),
    ("satellite pass", "satellite passes", "astronomy", {"norad_id": _INTEGER, "latitude": _NUMBER, "longitude": _NUMBER}),
    ("earthquake", "earthquakes", "geology", {"minimum_magnitude": _NUMBER, "depth_km": _NUMBER}),
    ("river gauge", "river gauges", "geology", {"river": _STRING, "station_code": _STRING}),
    ("court case", "court cases", "legal", {"docket": _STRING, "court": _STRING, "plaintiff": _STRING}),
    ("patent", "patents", "legal", {"assignee": _STRING, "classification": _STRING, "filed_after": _DATE}),
    ("trademark", "trademarks", "legal", {"mark": _STRING, "classes": {"type": "array", "items": _INTEGER}}),
    ("voter registration", "voter registrations", "government", {"district": _STRING, "precinct": _INTEGER}),
    ("building permit", "building permits", "government", {"parcel": _STRING, "zoning": _one_of("residential", "commercial", "industrial")}),
    ("tax return", "tax returns", "government", {"fiscal_year": _INTEGER, "filing_status": _one_of("single", "married", "head")}),
    ("student enrollment", "student enrollments", "school", {"student_number": _STRING, "semester": _STRING, "credits": _INTEGER}),
    ("exam grade", "exam grades", "school", {"student_number": _STRING, "module": _STRING, "points": _NUMBER}),
    ("scholarship", "scholarships", "school", {"faculty": _STRING, "stipend": _NUMBER}),
    ("database table", "database tables", "database", {"schema_name": _STRING, "columns": {"type": "array", "items": _STRING}}),
    ("database backup", "database backups", "database", {"cluster": _STRING, "retention_days": _INTEGER, "encrypted": _BOOLEAN}),
    ("virtual machine", "virtual machines", "cloud", {"flavor": _STRING, "vcpus": _INTEGER, "memory_gb": _INTEGER}),
    ("load balancer", "load balancers", "cloud", {"listener_port": _INTEGER, "protocol": _one_of("http", "https", "tcp")}),
    ("firewall rule", "firewall rules", "cloud", {"cidr": _STRING, "port_range": _STRING, "action": _one_of("allow", "deny")}),
    ("dns record", "dns records", "cloud", {"hostname": _STRING, "record_type": _one_of("A", "AAAA", "CNAME", "MX"), "ttl": _INTEGER}),
    ("ssl certificate", "ssl certificates", "cloud", {"common_name": _STRING, "validity_days": _INTEGER}),
    ("message queue", "message queues", "cloud", {"visibility_timeout": _INTEGER, "fifo": _BOOLEAN}),
    ("access policy", "access policies", "security", {"principal": _STRING, "permissions": {"type": "array", "items": _STRING}}),
    ("api token", "api tokens", "security", {"scope": _one_of("read", "write", "admin"), "expires": _DATE}),
    ("intrusion alert", "intrusion alerts", "security", {"sensor": _STRING, "threshold": _NUMBER}),
    ("build pipeline", "build pipelines", "ci", {"branch": _STRING, "runner": _STRING, "parallel_jobs": _INTEGER}),
    ("feature flag", "feature flags", "ci", {"rollout_percent": _INTEGER, "environment": _one_of("dev", "staging", "prod")}),
    ("chess game", "chess games", "games", {"opening": _STRING, "elo": _INTEGER, "color": _one_of("white", "black")}),
    ("dungeon character", "dungeon characters", "games", {"race": _STRING, "class_name": _STRING, "hit_points": _INTEGER}),
    ("trading card", "trading cards", "games", {"set_code": _STRING, "rarity": _one_of("common", "rare", "mythic")}),
    ("museum artifact", "museum artifacts", "culture", {"accession_number": _STRING, "epoch": _STRING, "on_display": _BOOLEAN}),
    ("archive manuscript", "archive manuscripts", "culture", {"shelf_mark": _STRING, "century": _INTEGER}),
    ("wine bottle", "wine bottles", "cellar", {"vineyard": _STRING, "vintage": _INTEGER, "grape": _STRING}),
    ("beehive", "beehives", "farm", {"apiary": _STRING, "frames": _INTEGER}),
    ("crop field", "crop fields", "farm", {"crop": _one_of("wheat", "barley", "maize", "rape"), "hectares": _NUMBER}),
    ("dairy herd", "dairy herds", "farm", {"breed": _STRING, "head_count": _INTEGER}),
    ("drone mission", "drone missions", "robotics", {"altitude_m": _NUMBER, "waypoints": {"type": "array", "items": _STRING}}),
    ("robot arm", "robot arms", "robotics", {"joint": _INTEGER, "angle": _NUMBER, "speed": _one_of("slow", "medium", "fast")}),
    ("laboratory sample", "laboratory samples", "laboratory", {"barcode": _STRING, "assay": _STRING, "volume_ul": _NUMBER}),
    ("ship voyage", "ship voyages", "shipping", {"imo_number": _STRING, "draft_m": _NUMBER}),
    ("blood donation", "blood donations", "clinic", {"blood_type": _one_of("A", "B", "AB", "O"), "donor_number": _STRING}),
    ("operating theater", "operating theaters", "clinic", {"ward": _STRING, "surgeon": _STRING}),
]  # fmt: skip
# What is done with it: (verb, words of the description, does it take the fields, does it take a key?).
DEEDS = [
    ("list", "Lists {plural}, filtered by what is given.", True, False),
    ("create", "Creates a {thing}.", True, False),
    ("get", "Returns a {thing} by its id.", False, True),
    ("update", "Changes fields of a {thing}.", True, True),
    ("archive", "Archives a {thing} that is no longer needed.", False, True),
    ("export", "Exports {plural} to a spreadsheet.", True, False),
    ("validate", "Checks a {thing} against the rules and reports what is wrong.", False, True),
]
OPTIONAL = {"list", "update", "export"}


def foreign_tools() -> list[Tool]:
    """All foreign tools, always in the same order."""
    tools = []
    for at, (thing, plural, group, fields) in enumerate(THINGS):
        for number, (verb, about, with_fields, with_key) in enumerate(DEEDS):
            words = (plural if verb in ("list", "export") else thing).split()
            properties = {f"{thing.split()[-1]}_id": {"type": "string"}} if with_key else {}
            required = list(properties)
            if with_fields:
                properties |= fields
                required += [] if verb in OPTIONAL else list(fields)[:2]
            tools.append(
                {
                    "type": "function",
                    "function": {
                        "name": styled([verb, *words], at + number, group),
                        "description": about.format(thing=thing, plural=plural),
                        "parameters": {"type": "object", "properties": properties, "required": required},
                    },
                }
            )
    return tools


def styled(words: list[str], number: int, group: str) -> str:
    """A name of these words in one of the styles that APIs use."""
    if number % 3 == 0:
        return "_".join(words)
    if number % 3 == 1:
        return words[0] + "".join(word.capitalize() for word in words[1:])
    return f"{group}.{'_'.join(words)}"


def pick_foreign(tools: list[Tool], count: int, rng: random.Random) -> list[Tool]:
    """So many different ones."""
    return rng.sample(tools, min(count, len(tools)))
